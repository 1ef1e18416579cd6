# SPDX-License-Identifier: Apache-2.0
#
# Builds for AArch64 on another Debian machine and runs what was built under an emulator.
# On Debian: apt-get install g++-aarch64-linux-gnu qemu-user
#
# lora needs only headers of others, and those are the same for every CPU. Debian's cross compiler has its own C and C++ libraries, whose
# headers come first; /usr/include, where xsimd, doctest, Eigen and nlohmann_json lie, is the last place it looks into. Libraries come
# from its own tree alone, so that nothing of the host's can be linked.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(lora_cross aarch64-linux-gnu)
set(CMAKE_CXX_COMPILER ${lora_cross}-g++)
set(CMAKE_FIND_ROOT_PATH /usr/${lora_cross})
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
# Debian keeps the CMake files of xsimd, which is headers only, in the folder of the host's CPU.
if(NOT DEFINED xsimd_ROOT)
  set(xsimd_ROOT "/usr/lib/${CMAKE_HOST_SYSTEM_PROCESSOR}-linux-gnu/cmake")
endif()
# The programs' loader and C library are below this folder.
find_program(LORA_QEMU_AARCH64 NAMES qemu-aarch64 qemu-aarch64-static)
if(LORA_QEMU_AARCH64)
  set(CMAKE_CROSSCOMPILING_EMULATOR "${LORA_QEMU_AARCH64};-L;/usr/${lora_cross}")
endif()

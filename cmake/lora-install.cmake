# SPDX-License-Identifier: Apache-2.0
#
# Headers, the CMake package and the pkg-config files. Nothing in them depends on the machine or on the prefix: the tree can be
# moved after it is installed.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

set(lora_package_dir "${CMAKE_INSTALL_DATADIR}/cmake/lora")
install(TARGETS lora EXPORT loraTargets FILE_SET HEADERS DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}")
install(TARGETS lora_io EXPORT loraIoTargets FILE_SET HEADERS DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}")
install(TARGETS lora_npz EXPORT loraNpzTargets)
install(TARGETS lora_eigen EXPORT loraEigenTargets)
install(TARGETS lora_tbb EXPORT loraTbbTargets)
install(TARGETS lora_openmp EXPORT loraOpenmpTargets)
install(TARGETS lora_openssl EXPORT loraOpensslTargets)
install(EXPORT loraTargets NAMESPACE lora:: DESTINATION "${lora_package_dir}")
install(EXPORT loraIoTargets NAMESPACE lora:: DESTINATION "${lora_package_dir}")
install(EXPORT loraNpzTargets NAMESPACE lora:: DESTINATION "${lora_package_dir}")
install(EXPORT loraEigenTargets NAMESPACE lora:: DESTINATION "${lora_package_dir}")
install(EXPORT loraTbbTargets NAMESPACE lora:: DESTINATION "${lora_package_dir}")
install(EXPORT loraOpenmpTargets NAMESPACE lora:: DESTINATION "${lora_package_dir}")
install(EXPORT loraOpensslTargets NAMESPACE lora:: DESTINATION "${lora_package_dir}")

configure_package_config_file(cmake/loraConfig.cmake.in "${CMAKE_CURRENT_BINARY_DIR}/loraConfig.cmake"
  INSTALL_DESTINATION "${lora_package_dir}" NO_SET_AND_CHECK_MACRO)
write_basic_package_version_file("${CMAKE_CURRENT_BINARY_DIR}/loraConfigVersion.cmake"
  COMPATIBILITY SameMinorVersion ARCH_INDEPENDENT)
install(FILES "${CMAKE_CURRENT_BINARY_DIR}/loraConfig.cmake" "${CMAKE_CURRENT_BINARY_DIR}/loraConfigVersion.cmake"
  cmake/lora-deps.cmake DESTINATION "${lora_package_dir}")

set(lora_pc_dir "${CMAKE_INSTALL_DATADIR}/pkgconfig")
string(REGEX REPLACE "[^/]+" ".." lora_pc_prefix "${lora_pc_dir}")  # from the .pc file back to the prefix
function(lora_install_pc name description requires)
  set(lora_pc_name "${name}")
  set(lora_pc_description "${description}")
  set(lora_pc_requires "${requires}")
  configure_file(cmake/lora.pc.in "${CMAKE_CURRENT_BINARY_DIR}/${name}.pc" @ONLY)
  install(FILES "${CMAKE_CURRENT_BINARY_DIR}/${name}.pc" DESTINATION "${lora_pc_dir}")
endfunction()
lora_install_pc(lora "${PROJECT_DESCRIPTION} (header-only, C++20)" "xsimd >= 8.1")
lora_install_pc(lora-io "lora's readers and writers of adapter files (header-only, C++20)" "lora = ${PROJECT_VERSION}, nlohmann_json")
lora_install_pc(lora-npz "lora's reader and writer of .npz archives (C++20)" "lora-io = ${PROJECT_VERSION}, zlib")
lora_install_pc(lora-eigen "lora's views as Eigen maps (header-only, C++20)" "lora = ${PROJECT_VERSION}, eigen3")
lora_install_pc(lora-tbb "lora on oneTBB's threads (C++20)" "lora = ${PROJECT_VERSION}, tbb")
# For OpenMP there is nothing to find: the flag -fopenmp, and lora.pc.
lora_install_pc(lora-openssl "lora's content hashes by OpenSSL (C++20)" "lora = ${PROJECT_VERSION}, libcrypto")

install(FILES LICENSE DESTINATION "${CMAKE_INSTALL_DOCDIR}")

# SPDX-License-Identifier: Apache-2.0
#
# Finds what lora's targets need. Used by lora's own CMakeLists.txt and, installed, by loraConfig.cmake, so that both find the
# same things by the same rules. Leaves lora_<what>_problem for xsimd, json, zlib, eigen, openssl, tbb and openmp:
# empty, or one sentence with its remedy.

set(lora_xsimd_problem "")
if(NOT TARGET xsimd)
  # No version is asked for: xsimd's version file calls 14 incompatible with a request for 8.1. It is compared here instead.
  find_package(xsimd CONFIG QUIET)
  if(NOT TARGET xsimd)
    set(lora_xsimd_problem "xsimd (8.1 or newer) was not found. On Debian: apt-get install libxsimd-dev")
  elseif(xsimd_VERSION VERSION_LESS 8.1)
    set(lora_xsimd_problem "xsimd ${xsimd_VERSION} was found (${xsimd_DIR}); 8.1 or newer is needed. On Debian: apt-get install libxsimd-dev")
  endif()
endif()
if(TARGET xsimd)
  # Debian's xsimd 8.1 names a library "xtl" that it neither finds nor needs; the link line would get -lxtl
  # (github.com/xtensor-stack/xsimd/issues/869, mended upstream after 8.1).
  get_target_property(lora_xsimd_links xsimd INTERFACE_LINK_LIBRARIES)
  if(lora_xsimd_links STREQUAL "xtl" AND NOT TARGET xtl)
    set_property(TARGET xsimd PROPERTY INTERFACE_LINK_LIBRARIES "")
  endif()
  unset(lora_xsimd_links)
endif()

set(lora_json_problem "")
if(NOT TARGET nlohmann_json::nlohmann_json)
  find_package(nlohmann_json CONFIG QUIET)
  if(NOT TARGET nlohmann_json::nlohmann_json)
    set(lora_json_problem "nlohmann_json was not found. On Debian: apt-get install nlohmann-json3-dev")
  endif()
endif()

set(lora_zlib_problem "")
if(NOT TARGET ZLIB::ZLIB)
  find_package(ZLIB QUIET)
  if(NOT TARGET ZLIB::ZLIB)
    set(lora_zlib_problem "zlib was not found. On Debian: apt-get install zlib1g-dev")
  endif()
endif()

set(lora_eigen_problem "")
if(NOT TARGET Eigen3::Eigen)
  find_package(Eigen3 CONFIG QUIET)
  if(NOT TARGET Eigen3::Eigen)
    set(lora_eigen_problem "Eigen3 was not found. On Debian: apt-get install libeigen3-dev")
  endif()
endif()

set(lora_openssl_problem "")
if(NOT TARGET OpenSSL::Crypto)
  find_package(OpenSSL QUIET)
  if(NOT TARGET OpenSSL::Crypto)
    set(lora_openssl_problem "OpenSSL was not found. On Debian: apt-get install libssl-dev")
  endif()
endif()

set(lora_tbb_problem "")
if(NOT TARGET TBB::tbb)
  find_package(TBB CONFIG QUIET)
  if(NOT TARGET TBB::tbb)
    set(lora_tbb_problem "oneTBB was not found. On Debian: apt-get install libtbb-dev")
  endif()
endif()

set(lora_openmp_problem "")
if(NOT TARGET OpenMP::OpenMP_CXX)
  find_package(OpenMP QUIET COMPONENTS CXX)
  if(NOT TARGET OpenMP::OpenMP_CXX)
    set(lora_openmp_problem "the compiler has no OpenMP. It comes with g++; for clang, on Debian: apt-get install libomp-dev")
  endif()
endif()

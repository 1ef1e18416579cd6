# SPDX-License-Identifier: Apache-2.0
#
# For lora's own tests, examples and benchmarks. Nothing here reaches a user: lora_dev is linked PRIVATE and never exported.

option(LORA_WERROR "Treat warnings in lora's own programs as errors" OFF)
mark_as_advanced(LORA_WERROR)
if(PROJECT_IS_TOP_LEVEL)
  set(CMAKE_CXX_EXTENSIONS OFF)
endif()

# The strict set that the headers stay silent under, on g++ and clang.
add_library(lora_dev INTERFACE)
target_compile_options(lora_dev INTERFACE -Wall -Wextra -Wpedantic -Wconversion -Wshadow $<$<BOOL:${LORA_WERROR}>:-Werror>)

# For programs that are more than headers: g++ 12 at -O3 calls "literal" + std::string a memcpy between overlapping bytes (GCC bug
# 105651, mended in 13). The header checks do without this.
set(lora_program_options $<$<AND:$<CXX_COMPILER_ID:GNU>,$<VERSION_LESS:$<CXX_COMPILER_VERSION>,13>>:-Wno-restrict>)

# The kernels in one object for all programs that link this (simd/instantiate.hpp): compiling them in each file took most of the build. The tests
# of kernels, of headers, of mixed flags and the documents' programs do without, as most users will.
function(lora_add_kernels name)
  set(source "${PROJECT_BINARY_DIR}/lora_dev_kernels.cpp")
  file(CONFIGURE OUTPUT "${source}" CONTENT "#include <lora/simd/instantiate.hpp>\n")
  add_library(${name} OBJECT EXCLUDE_FROM_ALL "${source}")
  target_compile_definitions(${name} PUBLIC LORA_EXTERN_KERNELS)
  target_compile_options(${name} PRIVATE ${ARGN})
  target_link_libraries(${name} PUBLIC lora_dev lora)
endfunction()
lora_add_kernels(lora_dev_kernels)
# For programs that serve: with sanitized kernels hot_swap takes eight times as long. Those are tested by linalg_test.
if("${CMAKE_CXX_FLAGS} ${CMAKE_CXX_FLAGS_DEBUG}" MATCHES "-fsanitize")
  lora_add_kernels(lora_example_kernels -O2 -fno-sanitize=all)
else()
  add_library(lora_example_kernels ALIAS lora_dev_kernels)
endif()

# lora_require(<package> TARGET <target> DEBIAN <package> FOR <who needs it>)
# Finds a package of lora's own programs. What is missing is gathered, so that a newcomer sees one list, not one error at a time.
macro(lora_require package)
  cmake_parse_arguments(lora_require "" "TARGET;DEBIAN;FOR" "" ${ARGN})
  if(NOT TARGET ${lora_require_TARGET})
    find_package(${package} QUIET)
  endif()
  if(NOT TARGET ${lora_require_TARGET})
    set_property(GLOBAL APPEND PROPERTY lora_missing "${package} (Debian: ${lora_require_DEBIAN}), needed by ${lora_require_FOR}")
    set_property(GLOBAL APPEND PROPERTY lora_missing_debian ${lora_require_DEBIAN})
  endif()
endmacro()

function(lora_report_missing)
  get_property(missing GLOBAL PROPERTY lora_missing)
  get_property(debian GLOBAL PROPERTY lora_missing_debian)
  if(missing)
    list(REMOVE_DUPLICATES missing)
    list(REMOVE_DUPLICATES debian)
    list(JOIN missing "\n  " missing)
    list(JOIN debian " " debian)
    message(FATAL_ERROR "lora: packages are missing:\n  ${missing}\nOn Debian: apt-get install ${debian}\n"
      "Or leave a part out: -DLORA_BUILD_TESTS=OFF, -DLORA_BUILD_EXAMPLES=OFF, -DLORA_BUILD_BENCH=OFF, -DLORA_BUILD_DOCS=OFF")
  endif()
endfunction()

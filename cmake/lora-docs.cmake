# SPDX-License-Identifier: Apache-2.0
#
# lora_docs: the API reference from the headers' comments, in build/<preset>/html. A malformed comment is an error.
# Without doxygen the target is absent: nobody who only builds programs should need it.
find_package(Doxygen QUIET)
if(NOT TARGET Doxygen::doxygen)
  message(STATUS "lora: no target lora_docs without Doxygen. On Debian: apt-get install doxygen")
else()
  set(DOXYGEN_STRIP_FROM_PATH "${PROJECT_SOURCE_DIR}/include")
  set(DOXYGEN_FILE_PATTERNS *.hpp)
  set(DOXYGEN_EXCLUDE_SYMBOLS "*::detail" "*::detail::*")
  set(DOXYGEN_JAVADOC_AUTOBRIEF YES)
  set(DOXYGEN_EXTRACT_ALL YES)
  set(DOXYGEN_WARN_AS_ERROR FAIL_ON_WARNINGS)
  set(DOXYGEN_QUIET YES)
  set(DOXYGEN_HAVE_DOT NO)
  set(DOXYGEN_GENERATE_LATEX NO)
  set(DOXYGEN_MACRO_EXPANSION YES)
  set(DOXYGEN_EXPAND_ONLY_PREDEF YES)
  set(DOXYGEN_PREDEFINED "LORA_LIFETIMEBOUND=" "LORA_ALWAYS_INLINE=inline")
  doxygen_add_docs(lora_docs "${PROJECT_SOURCE_DIR}/include/lora" COMMENT "API reference: ${CMAKE_CURRENT_BINARY_DIR}/html/index.html")
endif()

# SPDX-License-Identifier: Apache-2.0
#
# cmake -D SOURCE=<case.cpp> -P run.cmake -- <compiler> <flags>...
# A case is one file. As it stands it must compile without a warning (the control: the failure below is not an accident);
# with -DLORA_MUST_FAIL it must not compile, and the compiler's output must match the second line, "// EXPECT: <regex>".
# A third line "// FAIL_FLAGS: <flags>" adds flags to the second run.
set(compile "")
math(EXPR last "${CMAKE_ARGC} - 1")
foreach(i RANGE ${last})
  if(DEFINED after_dashes)
    list(APPEND compile "${CMAKE_ARGV${i}}")
  elseif("${CMAKE_ARGV${i}}" STREQUAL "--")
    set(after_dashes TRUE)
  endif()
endforeach()

file(READ "${SOURCE}" head LIMIT 4000)
if(NOT head MATCHES "^[^\n]*\n// EXPECT: ([^\n]+)\n")
  message(FATAL_ERROR "${SOURCE}: the second line must be // EXPECT: <regex>")
endif()
set(expect "${CMAKE_MATCH_1}")
set(flags "")
if(head MATCHES "^[^\n]*\n[^\n]*\n// FAIL_FLAGS: ([^\n]+)\n")
  separate_arguments(flags UNIX_COMMAND "${CMAKE_MATCH_1}")
endif()

set(ENV{LC_ALL} C)  # ASCII quotes in messages
execute_process(COMMAND ${compile} -Werror "${SOURCE}" RESULT_VARIABLE result OUTPUT_VARIABLE text ERROR_VARIABLE text)
if(NOT result STREQUAL "0")
  message(FATAL_ERROR "control: without LORA_MUST_FAIL the file should compile, and did not:\n${text}")
endif()
execute_process(COMMAND ${compile} -DLORA_MUST_FAIL ${flags} "${SOURCE}" RESULT_VARIABLE result OUTPUT_VARIABLE text ERROR_VARIABLE text)
if(result STREQUAL "0")
  message(FATAL_ERROR "with LORA_MUST_FAIL the file should not compile, and did")
endif()
if(NOT text MATCHES "${expect}")
  message(FATAL_ERROR "the file does not compile, as it should; but the compiler's output does not match\n  ${expect}\nIt wrote:\n${text}")
endif()

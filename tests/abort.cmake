# SPDX-License-Identifier: Apache-2.0
#
# cmake -D PROGRAM=<executable> -D SOURCE=<its source> -P abort.cmake
# The program must end by a failure, and what it wrote must match the source's second line: "// EXPECT: <regex>".
file(READ "${SOURCE}" head LIMIT 4000)
if(NOT head MATCHES "^[^\n]*\n// EXPECT: ([^\n]+)\n")
  message(FATAL_ERROR "${SOURCE}: the second line must be // EXPECT: <regex>")
endif()
set(expect "${CMAKE_MATCH_1}")
execute_process(COMMAND "${PROGRAM}" RESULT_VARIABLE result OUTPUT_VARIABLE text ERROR_VARIABLE text)
if(result STREQUAL "0")
  message(FATAL_ERROR "the program ended normally; it should have died. It wrote:\n${text}")
endif()
if(NOT text MATCHES "${expect}")
  message(FATAL_ERROR "the program died (${result}), but its output does not match\n  ${expect}\nIt wrote:\n${text}")
endif()

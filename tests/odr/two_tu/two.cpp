// SPDX-License-Identifier: Apache-2.0
#include "../../headers/use_everything.hpp"
#include "two_tu.hpp"

int odr_two_tu::two(const char* digits) { return use_everything::all(digits); }

// SPDX-License-Identifier: Apache-2.0
//
// Compiled with -include of every header of the library (tests/headers/CMakeLists.txt, ./dev lint): all of them together must be
// silent under the strict warnings at every optimisation level. A template that nobody instantiates warns about nothing, hence the uses.
#include "use_everything.hpp"

template class lora::ndview<float, 1>;
template class lora::ndview<const float, 3>;
template class lora::ndarray<float, 2>;
template class lora::snapshot_cell<lora::adapter_set>;

int everything(const char* digits);
int everything(const char* digits) { return use_everything::all(digits); }

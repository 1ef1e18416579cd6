// SPDX-License-Identifier: Apache-2.0
#ifndef WRAPPER_HPP
#define WRAPPER_HPP

#include <lora/nd/view.hpp>

float wrapper_sum(lora::ndview<const float, 1> v);

#endif

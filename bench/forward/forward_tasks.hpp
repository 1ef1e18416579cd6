// SPDX-License-Identifier: Apache-2.0
//
// The shared library bench_forward_tasks as forward.py (through ctypes) and main.cpp see it. One problem is open at a time. Batch 0 and layer
// 0 hold the data of the check, the others what is timed.
#ifndef LORA_BENCH_FORWARD_FORWARD_TASKS_HPP
#define LORA_BENCH_FORWARD_FORWARD_TASKS_HPP

inline constexpr int forward_sets = 3;  // x and y, changed every round

extern "C" {

const char* forward_context();                                 // the machine and the build, as JSON
const char* forward_load(const char* kind, const char* path);  // another library (see blas.cpp); "" or what went wrong

/**
 * Opens a problem: element 0 is f32, 1 bf16. Layers with together at least `rotate_bytes` of W are made, one where that is 0; they are kept
 * as long as nothing but n, threads, transposed and swap changes. How many there are, or 0 when there is not enough memory.
 */
int forward_open(int element, long n, long in, long out, long rank, long adapters, int transposed, int threads, int huge, int swap,
                 double rotate_bytes);
void forward_close();

const char* forward_peers();     // those that take this problem: JSON, [{name, how, form, rounds_between, base_only}]
void forward_prepare(int peer);  // before its first run; closed with the problem

const void* forward_x(int set);
void* forward_y(int set);
const void* forward_w(int layer);
const void* forward_a(int layer, int adapter);
const void* forward_b(int layer, int adapter);
double forward_scale();

void forward_soil();                                           // y of batch 0 becomes NaN
const char* forward_check(int rounds_between, int base_only);  // y of batch 0 against float64: "" or what is wrong
void forward_run(int peer);                                    // batch 0, layer 0
double forward_time(int peer, long calls, int set);            // seconds a call, layers in turn
int forward_turn();                                            // the next layer, for whoever is timed elsewhere

double forward_bytes();  // of W and the adapters, once
double forward_flops();
const char* forward_calibrate();    // chooses the fastest way to read, and names it
double forward_stream(long calls);  // bytes a second, layers in turn
double forward_burst(int kind);     // flops a second: 0 f32, 1 f32 in 256 bits, 2 bf16 pairs; 0 where there is none

}  // extern "C"

#endif

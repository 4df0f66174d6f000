// One launch of a kernel, for the threads that run its blocks.
#pragma once

#include <atomic>
#include <string>
#include <vector>

#include "device.h"

namespace shim {

struct Launch {
    const char* kernel;
    dim3 grid, block;
    size_t shared_bytes;
    void (*body)(void*);  // the kernel for one thread
    void* arguments;
    Order order;
    const void* (*marker)();  // the address of a thread-local variable of the kernel's library
    const unsigned* blocks;   // the order of the blocks if it is shuffled
};

// Takes `step` blocks at a time until none are left, and runs them on the calling thread.
void run_blocks(const Launch& launch, std::atomic<size_t>& next, size_t step);

std::vector<unsigned> shuffled_blocks(size_t count);

}  // namespace shim

// A CUDA device on the CPU: one block at a time, a fiber for each of its threads. Stricter than a device on purpose.
//
// A thread runs until it has to wait: at a barrier for its block, at a warp function for the lanes of the mask. The
// order in which threads (and blocks) get their turn is forward, reverse or shuffled; a kernel whose bits depend on it
// lacks a barrier. Shared memory starts as NaN in every block. There are no atomics: sums in the order of arrival are
// not repeatable, so a kernel that uses them does not compile here.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <deque>
#include <link.h>
#include <unistd.h>
#include <utility>
#include <vector>

#include "fiber.h"
#include "memory.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __align__(bytes) alignas(bytes)
// The emulator has no thread-local variables of its own, so those of the program are its kernels' static shared memory.
#define __shared__ static thread_local

struct uint3 {
    unsigned x, y, z;
};
struct dim3 {
    unsigned x = 1, y = 1, z = 1;
};

namespace shim {

enum class Order { forward, reverse, shuffled };
enum class State { ready, barrier, warp, done };

// A copy that cp.async has begun and that nobody has waited for yet.
struct Copy {
    unsigned char* to;
    const unsigned char* from;
    unsigned bytes, size;
};

struct Thread {
    uint3 index;
    unsigned rank;  // in the block
    State state;
    // What it waits at.
    const char* what;
    int line;
    unsigned mask;
    void* slot;
    Fiber fiber;
    // Of the first thread of a warp: its lanes that wait at a warp function.
    unsigned waiting;
    // Groups of copies, the one not yet committed last.
    std::deque<std::vector<Copy>> copies;
};

struct Device {
    dim3 grid, block;
    uint3 block_index;
    std::vector<Thread> threads;
    Thread* thread = nullptr;  // whose turn it is
    unsigned at_barrier = 0;
    void (*body)(void*) = nullptr;
    void* arguments = nullptr;
    const char* kernel = "";
    Region static_shared{}, dynamic_shared{};
    uint64_t random = 0;
};
inline Device device;

[[noreturn]] inline void fail(const char* format, ...) {
    fprintf(stderr, "%s: ", device.kernel);
    va_list values;
    va_start(values, format);
    vfprintf(stderr, format, values);
    va_end(values);
    const uint3 b = device.block_index;
    fprintf(stderr, "; block (%u, %u, %u)", b.x, b.y, b.z);
    if (device.thread) {
        const uint3 t = device.thread->index;
        fprintf(stderr, ", thread (%u, %u, %u)", t.x, t.y, t.z);
    }
    fprintf(stderr, "\n");
    fflush(stderr);
    _exit(70);
}

// ---- Waiting ----

inline void park(State state, const char* what, int line) {
    Thread* self = device.thread;
    self->state = state;
    self->what = what;
    self->line = line;
    self->fiber.leave();
}

// All threads of the block, none of which may have ended, have to come to the same barrier.
inline void barrier(int line) {
    if (++device.at_barrier < device.threads.size()) return park(State::barrier, "__syncthreads", line);
    device.at_barrier = 0;
    for (Thread& other : device.threads) {
        if (&other == device.thread) continue;
        if (other.line != line) fail("threads meet at different barriers, in lines %d and %d", line, other.line);
        other.state = State::ready;
    }
}

// A function of a warp: every lane of `mask` brings a `Slot`, the last to come works on all of them, and each leaves
// with its own. `work` is given 32 pointers, null outside the mask.
template <class Slot, class Work>
void collective(const char* what, int line, unsigned mask, Slot& slot, Work work) {
    Thread* self = device.thread;
    const unsigned lane = self->rank % 32;
    Thread* lanes = self - lane;
    if (!(mask >> lane & 1))
        fail("%s in line %d: the mask %08x is without lane %u that calls it", what, line, mask, lane);
    self->mask = mask;
    self->slot = &slot;
    self->what = what;
    self->line = line;
    lanes->waiting |= 1u << lane;
    if ((lanes->waiting & mask) != mask) return park(State::warp, what, line);
    Slot* slots[32] = {};
    for (unsigned i = 0; i < 32; ++i) {
        if (!(mask >> i & 1)) continue;
        if (lanes[i].mask != mask) return park(State::warp, what, line);
        if (lanes[i].line != line || lanes[i].what != what)
            fail(
                "lane %u is at %s in line %d, lane %u at %s in line %d", lane, what, line, i, lanes[i].what,
                lanes[i].line);
        slots[i] = static_cast<Slot*>(lanes[i].slot);
    }
    work(slots);
    lanes->waiting &= ~mask;
    for (unsigned i = 0; i < 32; ++i)
        if (slots[i]) lanes[i].state = State::ready;
}

// ---- Shared memory ----

// The program's thread-local variables.
inline Region thread_locals() {
    Region region{};
    dl_iterate_phdr(
        [](dl_phdr_info* info, size_t, void* found) {
            for (int i = 0; i < info->dlpi_phnum; ++i)
                if (info->dlpi_phdr[i].p_type == PT_TLS && info->dlpi_tls_data)
                    *static_cast<Region*>(found) = {
                        static_cast<unsigned char*>(info->dlpi_tls_data), info->dlpi_phdr[i].p_memsz};
            return 1;  // the first entry is the program itself
        },
        &region);
    return region;
}

inline bool is_shared(const void* address, size_t bytes) {
    return device.dynamic_shared.holds(address, bytes) || device.static_shared.holds(address, bytes);
}

// ---- A launch ----

__attribute__((noinline)) inline void run_thread() {
    device.body(device.arguments);
    for (const auto& group : device.thread->copies)
        if (!group.empty()) fail("the thread ends with a cp.async that it never waited for");
    device.thread->state = State::done;
}

// Is left for good in the middle, and so has no variables for a sanitizer to keep account of.
inline void thread_entry() {
    run_thread();
    device.thread->fiber.leave();
}

inline unsigned below(unsigned bound) {
    device.random = device.random * 6364136223846793005u + 1442695040888963407u;
    return (device.random >> 33) % bound;
}

inline void arrange(std::vector<unsigned>& order, Order how) {
    const unsigned count = order.size();
    for (unsigned i = 0; i < count; ++i) order[i] = how == Order::reverse ? count - 1 - i : i;
    if (how == Order::shuffled)
        for (unsigned i = count; i > 1; --i) std::swap(order[i - 1], order[below(i)]);
}

// Nobody can go on: says who waits where.
[[noreturn]] inline void deadlock() {
    device.thread = nullptr;
    fprintf(stderr, "%s: deadlock\n", device.kernel);
    size_t done = 0, listed = 0;
    for (const Thread& thread : device.threads) {
        if (thread.state == State::done) {
            ++done;
        } else if (listed++ < 40) {
            fprintf(stderr, "  thread %u waits at %s in line %d", thread.rank, thread.what, thread.line);
            fprintf(stderr, thread.state == State::warp ? " for the lanes %08x\n" : "\n", thread.mask);
        }
    }
    fail(
        "%zu of %zu threads wait for others that have ended or wait elsewhere", device.threads.size() - done,
        device.threads.size());
}

inline void run_block(Order how) {
    memset(device.static_shared.start, 0xff, device.static_shared.bytes);
    memset(device.dynamic_shared.start, 0xff, device.dynamic_shared.bytes);
    device.at_barrier = 0;
    for (Thread& thread : device.threads) {
        thread.state = State::ready;
        thread.waiting = 0;
        thread.copies.assign(1, {});
        thread.fiber.start(thread_entry);
    }
    size_t left = device.threads.size();
    auto turn = [&left](Thread& thread) {
        if (thread.state != State::ready) return false;
        device.thread = &thread;
        thread.fiber.enter();
        left -= thread.state == State::done;
        return true;
    };
    // Forward and in reverse a warp runs for as long as it can, and so far ahead of the others: it may overwrite what
    // they have not read. Shuffled, every thread of the block gets its turn.
    std::vector<unsigned> order(left);
    while (left) {
        bool progress = false;
        arrange(order, how);
        for (size_t first = 0; first < order.size(); first += 32) {
            for (bool again = true; again;) {
                bool any = false;
                for (size_t i = first; i < first + 32; ++i) any |= turn(device.threads[order[i]]);
                progress |= any;
                again = any && how != Order::shuffled;
            }
        }
        if (!progress) deadlock();
    }
    device.thread = nullptr;
}

// Runs `body(arguments)` in every thread of the grid.
inline void launch(
    const char* kernel, dim3 grid, dim3 block, size_t shared_bytes, void (*body)(void*), void* arguments, Order how) {
    static char* stacks = new_stacks(1024);
    const unsigned size = block.x * block.y * block.z;
    device.kernel = kernel;
    if (size == 0 || size > 1024 || size % 32)
        fail("a block of %u threads, where whole warps and at most 1024 are expected", size);
    if (shared_bytes > 227 << 10) fail("%zu bytes of shared memory, where a block has 227 KiB", shared_bytes);
    device.grid = grid;
    device.block = block;
    device.body = body;
    device.arguments = arguments;
    device.random = 1;
    device.static_shared = thread_locals();
    device.dynamic_shared = guarded(shared_bytes);
    device.threads = std::vector<Thread>(size);
    for (unsigned i = 0; i < size; ++i) {
        device.threads[i].rank = i;
        device.threads[i].index = {i % block.x, i / block.x % block.y, i / block.x / block.y};
        device.threads[i].fiber.stack = stacks + i * STACK_BYTES;
    }
    std::vector<unsigned> blocks(grid.x * grid.y * grid.z);
    arrange(blocks, how);
    for (unsigned i : blocks) {
        device.block_index = {i % grid.x, i / grid.x % grid.y, i / grid.x / grid.y};
        run_block(how);
        if (!guards_are_whole(device.dynamic_shared)) fail("a write outside of the dynamic shared memory");
    }
    release(device.dynamic_shared);
}

}  // namespace shim

#define threadIdx (shim::device.thread->index)
#define blockIdx (shim::device.block_index)
#define blockDim (shim::device.block)
#define gridDim (shim::device.grid)

inline void __syncthreads(int line = __builtin_LINE()) { shim::barrier(line); }

#include "intrinsics.h"

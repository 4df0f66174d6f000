// A multiprocessor of a CUDA device on the CPU: runs one block at a time, with a fiber for each of its threads. Deliberately
// stricter than a GPU. Kernels are compiled with this header; `device.cpp` runs them.
//
// A thread runs until it has to wait: at a barrier for its block, or at a warp function for the lanes of the mask. Threads (and
// blocks) run in forward, reverse or shuffled order; a kernel whose bits depend on the order lacks a barrier. Shared memory starts
// as NaN in every block. There are no atomics: sums in the order of arrival are not deterministic, so a kernel that uses atomics
// does not compile here.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <vector>

#include "fiber.h"
#include "memory.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
// A thread waits in these functions, which must be inlined into the kernel.
#define INLINED inline __attribute__((always_inline))
#ifndef __launch_bounds__
#define __launch_bounds__(...)
#endif
#define __align__(bytes) alignas(bytes)
// A kernel library has no other thread-local variables, so they can be found and filled without knowing their names.
#define __shared__ static thread_local

struct uint3 {
    unsigned x, y, z;
};
struct dim3 {
    unsigned x = 1, y = 1, z = 1;
};

// Symbols of the driver's library that kernel libraries use.
#define EMULATED_API __attribute__((visibility("default")))

namespace shim {

enum class Order { forward, reverse, shuffled };

constexpr unsigned FULL_MASK = 0xffffffff;
constexpr unsigned MOST_THREADS = 1024;

// A copy that cp.async has started and that nothing has waited for yet.
struct Copy {
    unsigned char* to;
    const unsigned char* from;
    bool valid;
};

// The copies of a thread, in groups; the last group is not committed yet.
struct Copies {
    std::vector<Copy> all;
    std::vector<size_t> ends;  // of the committed groups
    size_t first_copy = 0, first_group = 0;

    void add(const Copy& copy) { all.push_back(copy); }
    void commit() { ends.push_back(all.size()); }
    // Performs the copies of all but the newest `pending` committed groups.
    void finish(size_t pending) {
        while (ends.size() - first_group > pending) {
            for (const size_t end = ends[first_group++]; first_copy < end; ++first_copy) {
                const Copy& copy = all[first_copy];
                if (copy.valid)
                    memcpy(copy.to, copy.from, 16);
                else
                    memset(copy.to, 0, 16);
            }
        }
        if (first_copy == all.size() && first_group == ends.size()) return clear();
        // Remove finished copies now and then, because a loop may always have copies in flight.
        if (first_copy < 256) return;
        all.erase(all.begin(), all.begin() + first_copy);
        ends.erase(ends.begin(), ends.begin() + first_group);
        for (size_t& end : ends) end -= first_copy;
        first_copy = first_group = 0;
    }
    bool any_left() const { return first_copy < all.size(); }
    void clear() {
        all.clear();
        ends.clear();
        first_copy = first_group = 0;
    }
};

typedef float Four __attribute__((vector_size(16)));
typedef int FourIndices __attribute__((vector_size(16)));

// The values that the lanes of a warp exchange in a warp function that all of them call.
struct alignas(64) Exchange {
    union {
        uint64_t values[32];
        const unsigned char* rows[32];
    };
    union {
        unsigned lines[32][4];  // ldmatrix: the 16 bytes at each of the addresses
        struct {                // mma, by lane or by pair and column: pairs of bf16, and the sums
            unsigned a[32][4], b[8][8];
            Four c[32];
        };
    };
};

// A warp function and the source line of the call.
enum Function : unsigned {
    SYNCWARP, SHFL, SHFL_XOR, SHFL_UP, SHFL_DOWN, BALLOT, ANY, ALL, REDUCE_ADD, REDUCE_MAX, REDUCE_MIN, LDMATRIX,
    LDMATRIX_TRANS, MMA,
};
struct Place {
    unsigned code = 0;
    Place() = default;
    constexpr Place(Function function, int line) : code(unsigned(line) << 4 | function) {}
    int line() const { return int(code >> 4); }
    EMULATED_API const char* name() const;
    bool operator==(Place other) const { return code == other.code; }
    bool operator!=(Place other) const { return code != other.code; }
};

struct Warp;

struct alignas(64) Thread {
    Fiber fiber;
    // The thread to run after this one, if it can run: the next lane, or in reverse order the previous one.
    Thread* follower;
    Warp* warp;
    unsigned bit, lane;
    uint3 index;
    unsigned rank;  // in the block
    char* stack;
    // If it waits at a warp function for some of the lanes: where.
    Place place;
    unsigned mask;
    void* slot;
    Copies copies;
};

struct Warp {
    Thread* lanes;
    // Lanes that have not started, that can run, that have ended.
    unsigned fresh, ready, done;
    // Lanes that wait for the whole warp, and where; lanes that wait for some others.
    unsigned waiting, waiting_partly;
    Place place;
    // Used alternately: a lane may reach the next function before others have left this one.
    unsigned phase;
    Exchange exchange[2];
};

struct Device {
    dim3 grid, block;
    uint3 block_index;
    Thread* thread;  // the running thread
    Region static_shared, dynamic_shared;
    const char* kernel;
    unsigned size;  // threads of a block
    unsigned at_barrier;
    int barrier_line;
    struct Block* state;
};
#ifdef EMULATED_DEVICE_LIBRARY
// One per worker. `__thread`, so that an access is a single instruction.
extern EMULATED_API __attribute__((tls_model("initial-exec"))) __thread Device device;
#else
inline Device device;
#endif

// Ends the process with a message that names the kernel and the thread.
[[noreturn]] EMULATED_API void fail(const char* format, ...);

// Makes the calling thread wait; returns when it is ready and its turn comes.
EMULATED_API void wait_in_warp();
// The same, with a fast path to the next lane, which can usually run.
INLINED void wait(Thread& self) {
    Thread& next = *self.follower;
    unsigned& ready = self.warp->ready;
    if (!(ready & next.bit)) return wait_in_warp();
    ready ^= next.bit;
    device.thread = &next;
    Fiber::change(self.fiber, next.fiber);
}
// Fails: the lanes of a warp wait at different functions.
[[noreturn]] EMULATED_API void different_functions(const Thread& self, Place place);
[[noreturn]] EMULATED_API void different_barriers(int line);
[[noreturn]] EMULATED_API void no_such_lane(Place place, int lane);
EMULATED_API void release_barrier();

// All threads of the block must reach the same barrier; none of them may have ended.
INLINED void barrier(int line) {
    if (device.at_barrier == 0)
        device.barrier_line = line;
    else if (device.barrier_line != line)
        different_barriers(line);
    if (++device.at_barrier == device.size) return release_barrier();
    wait(*device.thread);
}

inline unsigned lane() {
    const unsigned lane = device.thread->lane;
    if (lane > 31) __builtin_unreachable();
    return lane;
}

// A function of the whole warp: returns when all lanes have reached it. `true` for the last lane, which returns before any
// other lane continues.
INLINED bool meet(Thread& self, Place place) {
    Warp& warp = *self.warp;
    if (warp.waiting == 0)
        warp.place = place;
    else if (warp.place != place)
        different_functions(self, place);
    warp.waiting |= self.bit;
    if (warp.waiting != FULL_MASK) {
        wait(self);
        return false;
    }
    warp.waiting = 0;
    warp.ready = FULL_MASK & ~self.bit;
    warp.phase ^= 1;
    return true;
}

// A function of some lanes of a warp: every lane of `mask` provides a `Slot`, the last to arrive works on all of them, and
// each lane leaves with its own. `work` gets 32 pointers, null outside the mask.
template <class Slot, class Work>
void collective(Place place, unsigned mask, Slot& slot, Work work) {
    Thread* self = device.thread;
    Warp& warp = *self->warp;
    if (!(mask & self->bit))
        fail("%s in line %d: the mask %08x is without lane %u that calls it", place.name(), place.line(), mask, self->lane);
    self->mask = mask;
    self->slot = &slot;
    self->place = place;
    warp.waiting_partly |= self->bit;
    if ((warp.waiting_partly & mask) != mask) return wait_in_warp();
    Slot* slots[32] = {};
    for (unsigned i = 0; i < 32; ++i) {
        if (!(mask >> i & 1)) continue;
        const Thread& other = warp.lanes[i];
        if (other.mask != mask) return wait_in_warp();
        if (other.place != place)
            fail(
                "lane %u is at %s in line %d, lane %u at %s in line %d", self->lane, place.name(), place.line(), i,
                other.place.name(), other.place.line());
        slots[i] = static_cast<Slot*>(other.slot);
    }
    work(slots);
    warp.waiting_partly &= ~mask;
    warp.ready |= mask & ~self->bit;
}

inline bool is_shared(const void* address, size_t bytes) {
    return device.dynamic_shared.holds(address, bytes) || device.static_shared.holds(address, bytes);
}

}  // namespace shim

#define threadIdx (shim::device.thread->index)
#define blockIdx (shim::device.block_index)
#define blockDim (shim::device.block)
#define gridDim (shim::device.grid)

INLINED void __syncthreads(int line = __builtin_LINE()) { shim::barrier(line); }

#include "intrinsics.h"

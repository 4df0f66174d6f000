// Runs the blocks of a launch on the calling thread; see device.h.

#include "device.h"

#include <cstdarg>
#include <link.h>
#include <memory>
#include <unordered_map>

#include "run.h"
#include "tensor.h"

namespace shim {

// The state of a worker that is kept between launches.
struct Block {
    Order order = Order::forward;
    void (*body)(void*) = nullptr;
    void* arguments = nullptr;
    Fiber scheduler;
    Thread nobody;
    std::vector<Thread> threads = std::vector<Thread>(MOST_THREADS);
    std::vector<Warp> warps = std::vector<Warp>(MOST_THREADS / 32);
    std::vector<char*> free_stacks;
    dim3 shape{0, 0, 0};
    unsigned size = 0;
    unsigned ended = 0;
    uint64_t random = 1;
    std::unordered_map<size_t, Region> dynamic_shared;  // by size
    std::unordered_map<const void*, Region> static_shared;
    std::vector<unsigned> turns;

    Block() {
        char* stacks = new_stacks(MOST_THREADS);
        for (unsigned i = MOST_THREADS; i-- > 0;) free_stacks.push_back(stacks + i * STACK_BYTES);
        for (unsigned i = 0; i < MOST_THREADS; ++i) {
            Thread& thread = threads[i];
            thread.rank = i;
            thread.lane = i % 32;
            thread.bit = 1u << i % 32;
            thread.warp = &warps[i / 32];
        }
        for (unsigned w = 0; w < warps.size(); ++w) warps[w].lanes = &threads[32 * w];
        set_order(Order::forward);
    }
    void set_order(Order it) {
        order = it;
        nobody.bit = 0;
        for (unsigned i = 0; i < MOST_THREADS; ++i) {
            Thread* const lanes = threads[i].warp->lanes;
            const unsigned lane = i % 32;
            // In shuffled order, the scheduler chooses each time.
            threads[i].follower = it == Order::shuffled  ? &nobody
                                  : it == Order::forward ? &lanes[(lane + 1) % 32]
                                                         : &lanes[(lane + 31) % 32];
        }
    }
};

// ---- Messages ----

#ifdef EMULATED_DEVICE_LIBRARY
static constexpr const char* PREFIX = "emulated device: ";
#else
static constexpr const char* PREFIX = "";
#endif

void fail(const char* format, ...) {
    char message[1024];
    va_list values;
    va_start(values, format);
    vsnprintf(message, sizeof message, format, values);
    va_end(values);
    char place[128] = "";
    const uint3 b = device.block_index;
    if (device.thread) {
        const uint3 t = device.thread->index;
        snprintf(place, sizeof place, ", thread (%u, %u, %u)", t.x, t.y, t.z);
    }
    fprintf(
        stderr, "%s%s: %s; block (%u, %u, %u)%s\n", PREFIX, device.kernel ? device.kernel : "?", message, b.x, b.y, b.z,
        place);
    fflush(stderr);
    _exit(70);
}

const char* Place::name() const {
    static const char* const NAMES[] = {
        "__syncwarp", "__shfl_sync", "__shfl_xor_sync", "__shfl_up_sync", "__shfl_down_sync", "__ballot_sync", "__any_sync",
        "__all_sync", "__reduce_add_sync", "__reduce_max_sync", "__reduce_min_sync", "ldmatrix_x4", "ldmatrix_x4_trans",
        "mma_16816",
    };
    return NAMES[code & 15];
}

void different_functions(const Thread& self, Place place) {
    const Warp& warp = *self.warp;
    fail(
        "lane %u is at %s in line %d, lane %d at %s in line %d", self.lane, place.name(), place.line(),
        __builtin_ctz(warp.waiting), warp.place.name(), warp.place.line());
}

void different_barriers(int line) {
    fail("threads meet at different barriers, in lines %d and %d", line, device.barrier_line);
}

void no_such_lane(Place place, int lane) {
    fail("%s in line %d: there is no lane %d", place.name(), place.line(), lane);
}

void not_shared(const char* what, int line, const void* address) {
    const bool aligned = reinterpret_cast<uintptr_t>(address) % 16 == 0;
    fail(
        "%s in line %d: the address is %s", what, line, aligned ? "outside of shared memory" : "not a multiple of 16");
}

// Reports a deadlock: no thread can continue. Lists where each one waits.
[[noreturn]] static void deadlock(const Block& block) {
    device.thread = nullptr;
    std::string places;
    unsigned listed = 0;
    for (unsigned i = 0; i < block.size; ++i) {
        const Thread& thread = block.threads[i];
        const Warp& warp = *thread.warp;
        const unsigned bit = 1u << thread.lane;
        if (warp.done & bit || ++listed > 8) continue;
        const bool whole = warp.waiting & bit, partly = warp.waiting_partly & bit;
        char text[160];
        const Place place = whole ? warp.place : thread.place;
        snprintf(
            text, sizeof text, "; thread %u waits at %s in line %d", i,
            whole || partly ? place.name() : "__syncthreads", whole || partly ? place.line() : device.barrier_line);
        places += text;
    }
    fail(
        "deadlock: %u of %u threads wait for others that have ended or wait elsewhere%s%s", block.size - block.ended,
        block.size, places.c_str(), listed > 8 ? "; ..." : "");
}

// ---- Turns ----

// The lane of `warp` that runs after lane `after`, among those that can run: the next one in forward order, the previous one in
// reverse order, 32 if there is none. In shuffled order, the scheduler chooses each time.
static inline unsigned next_lane(const Block& block, const Warp& warp, unsigned after) {
    const unsigned can = warp.fresh | warp.ready;
    if (!can || block.order == Order::shuffled) return 32;
    if (block.order == Order::reverse) {
        const unsigned below = can & ((1u << after) - 1);
        return 31 - __builtin_clz(below ? below : can);
    }
    const unsigned above = can & ~((2u << after) - 1);
    return __builtin_ctz(above ? above : can);
}

static void thread_entry();

// Makes lane `lane` of `warp` the running one and returns its fiber, a new one if the lane has not started.
static inline Fiber& take_turn(Block& block, Warp& warp, unsigned lane) {
    Thread& thread = warp.lanes[lane];
    const unsigned bit = 1u << lane;
    if (warp.fresh & bit) {
        warp.fresh &= ~bit;
        thread.stack = block.free_stacks.back();
        block.free_stacks.pop_back();
        thread.fiber.start(thread.stack, thread_entry);
    } else {
        warp.ready &= ~bit;
    }
    device.thread = &thread;
    return thread.fiber;
}

void wait_in_warp() {
    Thread& self = *device.thread;
    Block& block = *device.state;
    const unsigned lane = next_lane(block, *self.warp, self.lane);
    Fiber& next = lane < 32 ? take_turn(block, *self.warp, lane) : block.scheduler;
    Fiber::change(self.fiber, next);
}

void release_barrier() {
    Block& block = *device.state;
    device.at_barrier = 0;
    for (unsigned w = 0; w < block.size / 32; ++w) block.warps[w].ready = FULL_MASK;
    const Thread& self = *device.thread;
    self.warp->ready &= ~self.bit;
}

__attribute__((noinline)) static void run_thread() {
    Block& block = *device.state;
    block.body(block.arguments);
    Copies& copies = device.thread->copies;
    if (copies.any_left()) fail("the thread ends with a cp.async that it never waited for");
    copies.clear();
    ++block.ended;
}

// The end of a thread. Returns whether the next thread has not started, so that it can run on the same stack.
__attribute__((noinline)) static bool next_is_fresh() {
    Block& block = *device.state;
    Thread& self = *device.thread;
    Warp& warp = *self.warp;
    warp.done |= self.bit;
    const unsigned lane = next_lane(block, warp, self.lane);
    if (lane < 32 && warp.fresh >> lane & 1) {
        warp.fresh &= ~(1u << lane);
        warp.lanes[lane].stack = self.stack;
        device.thread = &warp.lanes[lane];
        return true;
    }
    block.free_stacks.push_back(self.stack);
    Fiber& next = lane < 32 ? take_turn(block, warp, lane) : block.scheduler;
    Fiber::change(self.fiber, next);
    abort();
}

// This function is left in the middle and never returns, so it has no variables that a sanitizer would track.
static void thread_entry() {
    do {
        run_thread();
    } while (next_is_fresh());
}

static unsigned below(Block& block, unsigned bound) {
    block.random = block.random * 6364136223846793005u + 1442695040888963407u;
    return (block.random >> 33) % bound;
}

static void run_block(Block& block) {
    memset(device.static_shared.start, 0xff, device.static_shared.bytes);
    memset(device.dynamic_shared.start, 0xff, device.dynamic_shared.bytes);
    device.at_barrier = 0;
    block.ended = 0;
    const unsigned warps = block.size / 32;
    for (unsigned w = 0; w < warps; ++w) {
        Warp& warp = block.warps[w];
        warp.fresh = FULL_MASK;
        warp.ready = warp.done = warp.waiting = warp.waiting_partly = warp.phase = 0;
    }
    const auto enter = [&](Warp& warp, unsigned lane) {
        Fiber& fiber = take_turn(block, warp, lane);
        Fiber::change(block.scheduler, fiber);
    };
    // In forward and reverse order, a warp runs as long as it can and as far ahead of the others as possible, so it may overwrite
    // values that the others have not read. In shuffled order, every thread of the block takes turns.
    while (block.ended < block.size) {
        bool progress = false;
        if (block.order == Order::shuffled) {
            for (unsigned i = 0; i < block.size; ++i) block.turns[i] = i;
            for (unsigned i = block.size; i > 1; --i) std::swap(block.turns[i - 1], block.turns[below(block, i)]);
            for (unsigned i = 0; i < block.size; ++i) {
                Warp& warp = block.warps[block.turns[i] / 32];
                const unsigned lane = block.turns[i] % 32;
                if (!((warp.fresh | warp.ready) >> lane & 1)) continue;
                enter(warp, lane);
                progress = true;
            }
        } else {
            for (unsigned i = 0; i < warps; ++i) {
                Warp& warp = block.warps[block.order == Order::reverse ? warps - 1 - i : i];
                while (const unsigned can = warp.fresh | warp.ready) {
                    enter(warp, block.order == Order::reverse ? 31 - __builtin_clz(can) : __builtin_ctz(can));
                    progress = true;
                }
            }
        }
        if (!progress) deadlock(block);
    }
    device.thread = nullptr;
}

// ---- Launches ----

// The thread-local variables of the library that contains `marker`, which is one of them: static shared memory.
static Region thread_locals(const void* marker) {
    struct Found {
        const unsigned char* marker;
        Region region;
    } found{static_cast<const unsigned char*>(marker), {}};
    dl_iterate_phdr(
        [](dl_phdr_info* info, size_t, void* data) {
            Found& found = *static_cast<Found*>(data);
            for (int i = 0; i < info->dlpi_phnum; ++i) {
                if (info->dlpi_phdr[i].p_type != PT_TLS || !info->dlpi_tls_data) continue;
                const Region region{static_cast<unsigned char*>(info->dlpi_tls_data), info->dlpi_phdr[i].p_memsz};
                if (region.holds(found.marker, 1)) found.region = region;
            }
            return 0;
        },
        &found);
    return found.region;
}

static Block& prepare(const Launch& launch) {
    if (!device.state) device.state = new Block;
    Block& block = *device.state;
    device.kernel = launch.kernel;
    device.grid = launch.grid;
    device.block = launch.block;
    device.thread = nullptr;
    device.block_index = {};
    device.size = launch.block.x * launch.block.y * launch.block.z;
    if (device.size == 0 || device.size > MOST_THREADS || device.size % 32)
        fail("a block of %u threads, where whole warps and at most 1024 are expected", device.size);
    if (launch.shared_bytes > 227 << 10)
        fail("%zu bytes of shared memory, where a block has 227 KiB", launch.shared_bytes);
    if (block.order != launch.order) block.set_order(launch.order);
    block.body = launch.body;
    block.arguments = launch.arguments;
    block.random = 1;
    if (memcmp(&block.shape, &launch.block, sizeof block.shape)) {
        block.shape = launch.block;
        block.size = device.size;
        block.turns.resize(block.size);
        for (unsigned i = 0; i < block.size; ++i) {
            const dim3 b = launch.block;
            block.threads[i].index = {i % b.x, i / b.x % b.y, i / b.x / b.y};
        }
    }
    Region& dynamic_shared = block.dynamic_shared[launch.shared_bytes];
    if (!dynamic_shared.start) dynamic_shared = guarded(launch.shared_bytes);
    device.dynamic_shared = dynamic_shared;
    // The address of the marker is different for each worker.
    const void* marker = launch.marker();
    Region& static_shared = block.static_shared[marker];
    if (!static_shared.start) static_shared = thread_locals(marker);
    device.static_shared = static_shared;
    return block;
}

void run_blocks(const Launch& launch, std::atomic<size_t>& next, size_t step) {
    Block& block = prepare(launch);
    const dim3 grid = launch.grid;
    const size_t blocks = size_t(grid.x) * grid.y * grid.z;
    while (true) {
        const size_t from = next.fetch_add(step, std::memory_order_relaxed);
        if (from >= blocks) break;
        for (size_t i = from; i < std::min(from + step, blocks); ++i) {
            const size_t at = launch.blocks ? launch.blocks[i] : launch.order == Order::reverse ? blocks - 1 - i : i;
            device.block_index = {
                unsigned(at % grid.x), unsigned(at / grid.x % grid.y), unsigned(at / grid.x / grid.y)};
            run_block(block);
            if (!guards_are_whole(device.dynamic_shared)) fail("a write outside of the dynamic shared memory");
        }
    }
    device.kernel = nullptr;
}

std::vector<unsigned> shuffled_blocks(size_t count) {
    std::vector<unsigned> order(count);
    uint64_t random = 1;
    for (size_t i = 0; i < count; ++i) order[i] = unsigned(i);
    for (size_t i = count; i > 1; --i) {
        random = random * 6364136223846793005u + 1442695040888963407u;
        std::swap(order[i - 1], order[(random >> 33) % i]);
    }
    return order;
}

// ---- Tensor cores ----

void read_lines(Exchange& exchange, unsigned count) {
    for (unsigned i = 0; i < count; ++i) memcpy(exchange.lines[i], exchange.rows[i], 16);
}

#if defined(__AVX512F__)
constexpr int WIDTH = 16;
#elif defined(__AVX__)
constexpr int WIDTH = 8;
#else
constexpr int WIDTH = 4;
#endif

// Sums are in f32, in the order of k. Products of two bf16 are exact in f32, so fused operations give the same bits.
//
// Lane 4·g + t holds rows g and g + 8: columns 2t, 2t + 1, 2t + 8 and 2t + 9 of `a`, and columns 2t and 2t + 1 of `c`. So
// the lanes of one g form a vector of sums. Its factors are two alternating numbers, and a row of `b` with each value twice.
void multiply(Exchange& x) {
    typedef float Floats __attribute__((vector_size(4 * WIDTH), may_alias));
    typedef unsigned Words __attribute__((vector_size(4 * WIDTH), may_alias));
    typedef uint64_t Pairs __attribute__((vector_size(4 * WIDTH), may_alias));
    typedef unsigned Row __attribute__((vector_size(32), may_alias));
    typedef uint64_t WideRow __attribute__((vector_size(64)));
    alignas(64) uint64_t a[2][8][4][2];  // first or second of a pair, g, t, which pair: the values of both rows
    alignas(64) WideRow b[16];           // k: each value twice
    for (size_t i = 0; i < 128 / WIDTH; ++i) {
        const Words pairs = reinterpret_cast<const Words*>(x.a)[i];
        reinterpret_cast<Words*>(a[0])[i] = pairs << 16;
        reinterpret_cast<Words*>(a[1])[i] = pairs & 0xffff0000u;
    }
    for (int pair = 0; pair < 8; ++pair) {
        const Row pairs = *reinterpret_cast<const Row*>(x.b[pair]);
        const WideRow first = __builtin_convertvector(pairs << 16, WideRow);
        const WideRow second = __builtin_convertvector(pairs & 0xffff0000u, WideRow);
        b[2 * pair] = first | first << 32;
        b[2 * pair + 1] = second | second << 32;
    }
    for (int part = 0; part < 16 / WIDTH; ++part) {
        Floats sums[8];
        for (int g = 0; g < 8; ++g) sums[g] = reinterpret_cast<const Floats*>(&x.c[4 * g])[part];
#pragma GCC unroll 16
        for (int k = 0; k < 16; ++k) {
            const Floats row = reinterpret_cast<const Floats*>(&b[k])[part];
#pragma GCC unroll 8
            for (int g = 0; g < 8; ++g) {
                const Pairs both = Pairs{} + a[k % 2][g][k / 2 % 4][k / 8];
                sums[g] += reinterpret_cast<Floats>(both) * row;
            }
        }
        for (int g = 0; g < 8; ++g) reinterpret_cast<Floats*>(&x.c[4 * g])[part] = sums[g];
    }
}

}  // namespace shim

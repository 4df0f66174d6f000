// Shared by the parts of the driver: settings, memory, work in streams, the report.
#pragma once

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <vector>

namespace emu {

// ---- Settings ----

struct Profile {
    const char* key;
    const char* name;
    int major, minor;
    int shared_optin;  // bytes of shared memory that a block may have
    int shared_sm;     // bytes of shared memory of a multiprocessor
    int multiprocessors;
    bool pools;        // memory pools, that is, stream-ordered allocations
    size_t mib;        // of memory
};
const Profile& profile();
// The value of RFT_EMU_`name`, a number; `otherwise` if it is not set.
long setting(const char* name, long otherwise);
const char* text_setting(const char* name);

// Prints one line and ends the process with exit code 70.
[[noreturn]] void objection(const char* format, ...);

// Held by every API call.
extern std::recursive_mutex lock;

// ---- Memory ----

namespace memory {
size_t total();
size_t used(int device);
size_t peak();
size_t allocations();
// False if there is not enough memory, or if this allocation must fail.
bool allocate(int device, uintptr_t* to, size_t bytes);
void release(uintptr_t at, int device);
// Reports a range that is not within one live allocation.
void check(const char* what, const void* start, size_t bytes);
// Bytes from `at` to the end of its allocation. Reports an error if there is none.
size_t reach(const char* what, int device, const void* at);
void fill(uintptr_t to, unsigned value, unsigned value_bytes, size_t count);
void* allocate_host(size_t bytes);
bool release_host(void* at);
bool is_pinned(const void* at);
// Forbids or allows writes to the allocation that `at` is in.
void set_constant(const void* at, bool constant);
// The start of the allocation that contains `at`, which must exist.
uintptr_t start_of(const void* at);
// Describes an address that a kernel touched; empty if it is in no allocation.
std::string describe(uintptr_t at);
// Reports writes next to an allocation.
void check_all();
size_t left();
// Counts the releases: a check of pointers is valid until the next one.
size_t releases();
}  // namespace memory

// ---- Work ----

// Puts work into a stream: done immediately, deferred until the program waits, or recorded in a graph. Returns a driver error
// code: 0, or 901 if the stream's capture is invalidated.
int enqueue(void* stream, std::function<void()> work);
// Runs `task` on this thread, and on all others if it takes about `seconds` and that is worth it. Returns the number of threads.
size_t on_all(double seconds, const std::function<void()>& task);
// Runs `task(i)` for all i below `count`, on all cores if it is worth it (`seconds` is an estimate for all).
void parallel(size_t count, double seconds, const std::function<void(size_t)>& task);
int current_device();  // -1 without a context
// Turns faults of the calling thread into error messages.
void catch_faults();

// Handles of one kind. Destroyed handles are remembered, and their addresses are never used again.
template <class T>
class Handles {
    const char* kind;
    std::map<const void*, bool> all;  // whether it is alive

public:
    explicit Handles(const char* kind) : kind(kind) {}
    T* make(T value) {
        T* it = new T(std::move(value));
        all[it] = true;
        return it;
    }
    T& get(const void* handle) {
        const auto it = all.find(handle);
        if (it == all.end()) objection("%p is not a valid %s", handle, kind);
        if (!it->second) objection("a destroyed %s is used", kind);
        return *static_cast<T*>(const_cast<void*>(handle));
    }
    // The value is replaced by an empty one.
    void destroy(const void* handle) {
        get(handle) = T();
        all[handle] = false;
    }
    template <class Visit>
    void each(Visit visit) {
        for (const auto& [handle, lives] : all)
            if (lives) visit(*static_cast<T*>(const_cast<void*>(handle)));
    }
};

// ---- Report ----

namespace report {
struct Count {
    size_t times = 0, from_graphs = 0;  // number of times, and how many of these as a node of a graph
    size_t blocks = 0;                  // of a kernel
    double bytes = 0, flops = 0;        // of a product; bytes of a copy
    double seconds = 0;

    void add(double bytes, double flops = 0, double seconds = 0, size_t blocks = 0);
};
struct Totals {
    size_t graph_launches = 0, graphs = 0, instantiated = 0, nodes = 0, waits = 0;
};
extern Totals totals;
extern Count copies_up, copies_down, copies_across, fills;
extern std::map<std::string, Count> kernels, products;
// Whether the current work is a node of a graph.
extern bool in_graph;
void write();
}  // namespace report

using Clock = std::chrono::steady_clock;
inline double since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

}  // namespace emu

// libcuda.so.1 without a GPU: contexts, memory, streams, graphs, events, modules, launches. The matrix products of libcublasLt are
// in blas.cpp. A program that loads this library runs its kernels on the CPU (device.h). If a GPU would do something undefined,
// the library prints one line, "emulated device: ...", and ends the program with exit code 70.
//
// Environment:
//   RFT_EMU_GPU=h200              GPU model: h200, a100, l40s, b200, rtx5090 (compute capability, shared memory, memory
//                                 pools, memory, multiprocessors)
//   RFT_EMU_DEVICES=1             number of GPUs
//   RFT_EMU_MEMORY_MIB=N          memory of each GPU, in MiB
//   RFT_EMU_POOLS=0               without memory pools
//   RFT_EMU_ALIGN=256             alignment of allocations; a smaller value finds smaller reads past the end
//   RFT_EMU_DEFERRED=1            work is done when the program waits for it, not when it is issued
//   RFT_EMU_ORDER=forward         order of blocks and threads: forward, reverse, shuffled
//   RFT_EMU_CONST=1               stops a kernel that writes to a constant argument
//   RFT_EMU_FAIL_ALLOCATION=N     the N-th allocation fails, counted from 1
//   RFT_EMU_THREADS=N             number of threads that run blocks and products; default: all cores
//   RFT_EMU_REPORT=FILE           write a JSON report when the process ends; `%p` is the process ID
//   RFT_EMU_SUMMARY=1             print a summary to stderr
//   RFT_EMU_ABORT=1               errors abort, for a debugger

#include <algorithm>
#include <atomic>
#include <cstdarg>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <dirent.h>
#include <dlfcn.h>
#include <memory>
#include <unistd.h>

#include "emu.h"
#include "kernel.h"
#include "run.h"

using namespace emu;

typedef int CUresult;
enum {
    OK = 0,
    INVALID_VALUE = 1,
    OUT_OF_MEMORY = 2,
    NOT_INITIALIZED = 3,
    INVALID_DEVICE = 101,
    INVALID_IMAGE = 200,
    INVALID_CONTEXT = 201,
    INVALID_HANDLE = 400,
    ILLEGAL_STATE = 401,
    NOT_FOUND = 500,
    NOT_READY = 600,
    NOT_SUPPORTED = 801,
    CAPTURE_UNSUPPORTED = 900,
    CAPTURE_INVALIDATED = 901,
    CAPTURE_IMPLICIT = 906,
};

// ---- Settings ----

namespace emu {

std::recursive_mutex lock;

const char* text_setting(const char* name) {
    const std::string full = std::string("RFT_EMU_") + name;
    const char* value = getenv(full.c_str());
    return value && *value ? value : nullptr;
}

long setting(const char* name, long otherwise) {
    const char* value = text_setting(name);
    if (!value) return otherwise;
    char* end;
    const long number = strtol(value, &end, 10);
    if (*end) objection("RFT_EMU_%s=%s: expected a number", name, value);
    return number;
}

const Profile& profile() {
    static const Profile all[] = {
        {"h200", "Emulated H200", 9, 0, 232448, 233472, 132, true, 143771},
        {"a100", "Emulated A100", 8, 0, 166912, 167936, 108, true, 81920},
        {"l40s", "Emulated L40S", 8, 9, 101376, 102400, 142, true, 46068},
        {"b200", "Emulated B200", 10, 0, 232448, 233472, 148, true, 183359},
        {"rtx5090", "Emulated RTX 5090", 12, 0, 101376, 102400, 170, true, 32607},
    };
    static const Profile& chosen = [&]() -> const Profile& {
        const char* wanted = text_setting("GPU");
        for (const Profile& it : all)
            if (!wanted || !strcmp(wanted, it.key)) return it;
        objection("RFT_EMU_GPU=%s: expected h200, a100, l40s, b200 or rtx5090", wanted);
    }();
    return chosen;
}

void objection(const char* format, ...) {
    char message[1024];
    va_list values;
    va_start(values, format);
    vsnprintf(message, sizeof message, format, values);
    va_end(values);
    fprintf(stderr, "emulated device: %s\n", message);
    fflush(stderr);
    if (getenv("RFT_EMU_ABORT")) abort();
    _exit(70);
}

}  // namespace emu

namespace {

bool pools() {
    static const bool it = setting("POOLS", profile().pools);
    return it;
}
bool deferred() {
    static const bool it = setting("DEFERRED", 0);
    return it;
}
int device_count() {
    static const int it = int(std::min(16L, setting("DEVICES", 1)));
    return it;
}
shim::Order thread_order() {
    static const shim::Order it = [] {
        const std::string name = text_setting("ORDER") ? text_setting("ORDER") : "forward";
        if (name == "forward") return shim::Order::forward;
        if (name == "reverse") return shim::Order::reverse;
        if (name == "shuffled") return shim::Order::shuffled;
        objection("RFT_EMU_ORDER=%s: expected forward, reverse or shuffled", name.c_str());
    }();
    return it;
}

// ---- Contexts ----

struct Context {
    int device;
    int retained;
};
Context contexts[16];
thread_local Context* current;

// ---- Streams ----

using Work = std::function<void()>;

struct Graph {
    std::vector<Work> nodes;
};

// A position in a stream.
struct Mark {
    struct Stream* stream = nullptr;
    bool done = false;
    Clock::time_point at;
    int polls = 0;
};

struct Stream {
    int device = 0;
    bool blocking = false;  // synchronizes with the null stream
    std::deque<Work> queue;
    std::unique_ptr<Graph> capture;
    int capture_mode = 0;
    pid_t captured_by = 0;
    bool invalidated = false;
    bool running = false;
};

Handles<Stream> streams("stream");
Handles<Graph> graphs("graph"), executables("executable graph");
struct Event {
    bool timed = true;
    std::shared_ptr<Mark> mark;
};
Handles<Event> events("event");

// One per device. The null stream is never captured.
Stream& null_stream() {
    static Stream all[16];
    const int device = current ? current->device : 0;
    all[device].device = device;
    return all[device];
}

bool is_null(const void* handle) { return handle == nullptr || handle == reinterpret_cast<void*>(1); }

Stream& stream_of(void* handle) {
    if (is_null(handle) || handle == reinterpret_cast<void*>(2)) return null_stream();
    return streams.get(handle);
}

// Runs the work in the stream, until `mark` is reached if there is one.
void flush(Stream& stream, const Mark* mark = nullptr) {
    if (stream.running) objection("a stream waits for itself");
    stream.running = true;
    while (!stream.queue.empty() && !(mark && mark->done)) {
        const Work work = std::move(stream.queue.front());
        stream.queue.pop_front();
        work();
    }
    stream.running = false;
}

void flush_all() {
    flush(null_stream());
    streams.each([](Stream& stream) { flush(stream); });
}

std::shared_ptr<Mark> mark_end(Stream& stream) {
    auto mark = std::make_shared<Mark>();
    mark->stream = &stream;
    const auto reached = [mark] {
        mark->done = true;
        mark->at = Clock::now();
    };
    if (deferred())
        stream.queue.push_back(reached);
    else
        reached();
    return mark;
}

void wait_for(Stream& stream, const std::shared_ptr<Mark>& mark) {
    if (mark->done || mark->stream == &stream) return;
    stream.queue.push_back([mark] {
        if (!mark->done) flush(*mark->stream, mark.get());
    });
}

// Work in the null stream runs after earlier work of all blocking streams, and their later work runs after it.
void order_with_null(Stream& stream) {
    if (!deferred()) return;
    if (&stream == &null_stream()) {
        streams.each([&](Stream& other) {
            if (other.blocking && !other.queue.empty() && !other.running) wait_for(stream, mark_end(other));
        });
    } else if (stream.blocking && !null_stream().queue.empty() && !null_stream().running) {
        wait_for(stream, mark_end(null_stream()));
    }
}

CUresult issue(Stream& stream, Work work) {
    if (stream.capture) {
        if (stream.invalidated) return CAPTURE_INVALIDATED;
        stream.capture->nodes.push_back(std::move(work));
        ++report::totals.nodes;
        return OK;
    }
    order_with_null(stream);
    if (deferred())
        stream.queue.push_back(std::move(work));
    else
        work();
    return OK;
}

// Calls that are forbidden while the calling thread captures a stream, or any thread does in global mode. They invalidate the
// capture.
bool forbidden() {
    bool any = false;
    streams.each([&](Stream& stream) {
        if (!stream.capture || stream.capture_mode == 2) return;
        if (stream.capture_mode == 1 && stream.captured_by != gettid()) return;
        stream.invalidated = true;
        any = true;
    });
    return any;
}

bool lose_capture(Stream& stream) {
    if (!stream.capture) return false;
    stream.invalidated = true;
    return true;
}

// ---- Kernels ----

struct Function {
    const Kernel* kernel = nullptr;
    const Library* library = nullptr;
    int dynamic_shared = 48 << 10;
    report::Count* count = nullptr;
    double seconds_per_block = 0;
    size_t under_way = 0;  // deferred launches
};
struct Module {
    std::map<std::string, Function> functions;
};
Handles<Module> modules("module");
std::map<const void*, bool> functions;  // the functions that were looked up, and whether their module is loaded

// The libraries in the folder `kernels` next to this library.
const std::vector<const Library*>& libraries() {
    static const std::vector<const Library*> all = [] {
        std::vector<const Library*> found;
        Dl_info info;
        if (!dladdr(reinterpret_cast<void*>(&forbidden), &info)) objection("dladdr: the library does not find itself");
        char path[4096];
        if (!realpath(info.dli_fname, path)) objection("%s: not found", info.dli_fname);
        // The kernels' libraries use symbols of this library.
        if (!dlopen(path, RTLD_NOW | RTLD_NOLOAD | RTLD_GLOBAL)) objection("%s", dlerror());
        std::string folder = path;
        folder = folder.substr(0, folder.rfind('/')) + "/kernels";
        DIR* directory = opendir(folder.c_str());
        if (!directory) objection("there is no folder %s", folder.c_str());
        std::vector<std::string> files;
        while (const dirent* entry = readdir(directory)) {
            const std::string name = entry->d_name;
            if (name.size() > 3 && name.substr(name.size() - 3) == ".so") files.push_back(folder + "/" + name);
        }
        closedir(directory);
        std::sort(files.begin(), files.end());
        for (const std::string& file : files) {
            void* library = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
            if (!library) objection("%s", dlerror());
            const auto table = reinterpret_cast<const Library* (*)()>(dlsym(library, "emulated_kernels"));
            if (!table) objection("%s", dlerror());
            found.push_back(table());
        }
        return found;
    }();
    return all;
}

Function& function_of(void* handle) {
    const auto it = functions.find(handle);
    if (it == functions.end()) objection("%p is not a function of a module", handle);
    if (!it->second) objection("a function is used after its module was unloaded");
    return *static_cast<Function*>(handle);
}

size_t parameter_offset(const Kernel& kernel, size_t index) {
    size_t at = 0;
    for (size_t i = 0; i <= index; ++i) {
        const Parameter& it = kernel.parameters[i];
        at = (at + it.align - 1) / it.align * it.align;
        if (i < index) at += it.size;
    }
    return at;
}

void check_arguments(const Kernel& kernel, int device, const std::vector<std::pair<size_t, void*>>& pointers) {
    for (const auto& [index, at] : pointers) {
        if (!at) continue;
        char what[160];
        snprintf(what, sizeof what, "%s: argument %zu", kernel.name, index);
        memory::reach(what, device, at);
        const unsigned align = kernel.parameters[index].pointee_align;
        if (uintptr_t(at) % align) objection("%s: %p is not aligned to %u bytes", what, at, align);
    }
}

struct Launched {
    Function* function;
    dim3 grid, block;
    size_t shared;
    int device;
    std::vector<unsigned char> packed;
    std::vector<std::pair<size_t, void*>> pointers;
    size_t checked;  // number of memory releases before the last check
    bool put_off;

    void operator()() {
        const Kernel& kernel = *function->kernel;
        function->under_way -= put_off;
        if (checked != memory::releases()) {
            check_arguments(kernel, device, pointers);
            checked = memory::releases();
        }
        const std::vector<void*> constants = constant_arguments();
        for (void* at : constants) memory::set_constant(at, true);
        const size_t blocks = size_t(grid.x) * grid.y * grid.z;
        std::vector<unsigned> order;
        if (thread_order() == shim::Order::shuffled) order = shim::shuffled_blocks(blocks);
        const shim::Launch launch{
            kernel.name,    grid,          block, shared, kernel.body, packed.data(), thread_order(),
            function->library->marker, order.empty() ? nullptr : order.data()};
        catch_faults();
        const auto start = Clock::now();
        std::atomic<size_t> next{0};
        const double expected = blocks > 1 ? double(blocks) * function->seconds_per_block : 0;
        // Small pieces, so that all threads end at about the same time.
        const size_t step = std::max<size_t>(1, std::min<size_t>(64, blocks / 64));
        const size_t threads = on_all(expected, [&] { shim::run_blocks(launch, next, step); });
        const double seconds = since(start);
        function->seconds_per_block = seconds * double(threads) / double(blocks);
        function->count->add(0, 0, seconds, blocks);
        for (void* at : constants) memory::set_constant(at, false);
    }

    // Those in allocations that no other, writable argument points to.
    std::vector<void*> constant_arguments() const {
        static const bool wanted = setting("CONST", 0);
        if (!wanted) return {};
        std::map<uintptr_t, bool> all;
        for (const auto& [index, at] : pointers)
            if (at) all.emplace(memory::start_of(at), true).first->second &= function->kernel->parameters[index].constant;
        std::vector<void*> constants;
        for (const auto& [start, constant] : all)
            if (constant) constants.push_back(reinterpret_cast<void*>(start));
        return constants;
    }
};

int poll(const std::shared_ptr<Mark>& mark) {
    if (!mark || mark->done) return OK;
    // Treat repeated queries as a wait.
    if (++mark->polls >= 3) flush(*mark->stream, mark.get());
    return mark->done ? OK : NOT_READY;
}

}  // namespace

namespace emu {

int enqueue(void* stream, std::function<void()> work) { return issue(stream_of(stream), std::move(work)); }
int current_device() { return current ? current->device : -1; }

}  // namespace emu

#define API extern "C" __attribute__((visibility("default"))) CUresult
#define LOCK std::lock_guard<std::recursive_mutex> guard(lock)
#define CONTEXT \
    LOCK;       \
    if (!current) return INVALID_CONTEXT

// ---- The device ----

API cuInit(unsigned) {
    LOCK;
    static const bool once = [] {
        atexit(report::write);
        catch_faults();
        return true;
    }();
    (void)once;
    return OK;
}
API cuDriverGetVersion(int* version) {
    *version = 13000;
    return OK;
}
API cuDeviceGetCount(int* count) {
    *count = device_count();
    return OK;
}
API cuDeviceGet(int* device, int ordinal) {
    if (ordinal < 0 || ordinal >= device_count()) return INVALID_DEVICE;
    *device = ordinal;
    return OK;
}
API cuDeviceGetName(char* name, int length, int) {
    snprintf(name, size_t(length), "%s", profile().name);
    return OK;
}
API cuDeviceTotalMem_v2(size_t* bytes, int) {
    *bytes = memory::total();
    return OK;
}
API cuDeviceGetUuid_v2(void* uuid, int device) {
    memset(uuid, 7, 16);
    static_cast<char*>(uuid)[15] = char(device);
    return OK;
}
API cuDeviceGetUuid(void* uuid, int device) { return cuDeviceGetUuid_v2(uuid, device); }
API cuDeviceGetPCIBusId(char* text, int length, int device) {
    snprintf(text, size_t(length), "0000:%02x:00.0", device);
    return OK;
}
API cuDeviceGetAttribute(int* value, int attribute, int device) {
    const Profile& it = profile();
    switch (attribute) {
        case 1: *value = 1024; break;                // MAX_THREADS_PER_BLOCK
        case 2: case 3: *value = 1024; break;        // MAX_BLOCK_DIM_X, Y
        case 4: *value = 64; break;                  // MAX_BLOCK_DIM_Z
        case 5: *value = 2147483647; break;          // MAX_GRID_DIM_X
        case 6: case 7: *value = 65535; break;       // MAX_GRID_DIM_Y, Z
        case 8: *value = 48 << 10; break;            // MAX_SHARED_MEMORY_PER_BLOCK
        case 10: *value = 32; break;                 // WARP_SIZE
        case 12: *value = 65536; break;              // MAX_REGISTERS_PER_BLOCK
        case 13: *value = 1500000; break;            // CLOCK_RATE
        case 16: *value = it.multiprocessors; break; // MULTIPROCESSOR_COUNT
        case 33: *value = 0; break;                  // PCI_BUS_ID
        case 34: *value = device; break;             // PCI_DEVICE_ID
        case 38: *value = 50 << 20; break;           // L2_CACHE_SIZE
        case 39: *value = it.major == 9 || it.minor == 0 ? 2048 : 1536; break;  // MAX_THREADS_PER_MULTIPROCESSOR
        case 41: *value = 1; break;                  // UNIFIED_ADDRESSING
        case 75: *value = it.major; break;           // COMPUTE_CAPABILITY_MAJOR
        case 76: *value = it.minor; break;           // COMPUTE_CAPABILITY_MINOR
        case 81: *value = it.shared_sm; break;       // MAX_SHARED_MEMORY_PER_MULTIPROCESSOR
        case 82: *value = 65536; break;              // MAX_REGISTERS_PER_MULTIPROCESSOR
        case 97: *value = it.shared_optin; break;    // MAX_SHARED_MEMORY_PER_BLOCK_OPTIN
        case 115: *value = pools(); break;           // MEMORY_POOLS_SUPPORTED
        default: *value = 0;
    }
    return OK;
}
API cuGetErrorName(int error, const char** text) {
    static const std::map<int, const char*> names = {
        {OK, "CUDA_SUCCESS"},
        {INVALID_VALUE, "CUDA_ERROR_INVALID_VALUE"},
        {OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY"},
        {INVALID_DEVICE, "CUDA_ERROR_INVALID_DEVICE"},
        {INVALID_IMAGE, "CUDA_ERROR_INVALID_IMAGE"},
        {INVALID_CONTEXT, "CUDA_ERROR_INVALID_CONTEXT"},
        {INVALID_HANDLE, "CUDA_ERROR_INVALID_HANDLE"},
        {ILLEGAL_STATE, "CUDA_ERROR_ILLEGAL_STATE"},
        {NOT_FOUND, "CUDA_ERROR_NOT_FOUND"},
        {NOT_READY, "CUDA_ERROR_NOT_READY"},
        {NOT_SUPPORTED, "CUDA_ERROR_NOT_SUPPORTED"},
        {CAPTURE_UNSUPPORTED, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED"},
        {CAPTURE_INVALIDATED, "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED"},
        {CAPTURE_IMPLICIT, "CUDA_ERROR_STREAM_CAPTURE_IMPLICIT"},
    };
    const auto it = names.find(error);
    *text = it == names.end() ? "CUDA_ERROR_UNKNOWN" : it->second;
    return OK;
}
API cuGetErrorString(int error, const char** text) { return cuGetErrorName(error, text); }

// ---- Contexts ----

API cuDevicePrimaryCtxRetain(void** context, int device) {
    LOCK;
    if (device < 0 || device >= device_count()) return INVALID_DEVICE;
    contexts[device].device = device;
    ++contexts[device].retained;
    *context = &contexts[device];
    return OK;
}
API cuDevicePrimaryCtxRelease_v2(int device) {
    LOCK;
    if (contexts[device].retained-- == 0) objection("a context is released more often than it was retained");
    if (contexts[device].retained == 0) {
        flush_all();
        memory::check_all();
    }
    return OK;
}
API cuCtxGetCurrent(void** context) {
    *context = current;
    return OK;
}
API cuCtxSetCurrent(void* context) {
    current = static_cast<Context*>(context);
    if (current && current->retained == 0) objection("use of a context that was released");
    return OK;
}
API cuCtxGetDevice(int* device) {
    CONTEXT;
    *device = current->device;
    return OK;
}
API cuCtxSetFlags(unsigned) { return OK; }
API cuCtxGetStreamPriorityRange(int* least, int* greatest) {
    *least = 0;
    *greatest = -5;
    return OK;
}
API cuCtxSynchronize() {
    CONTEXT;
    bool captured = forbidden();
    streams.each([&](Stream& stream) { captured |= lose_capture(stream); });
    if (captured) return CAPTURE_UNSUPPORTED;
    ++report::totals.waits;
    flush_all();
    return OK;
}

// ---- Memory ----

API cuMemGetInfo_v2(size_t* free, size_t* all) {
    CONTEXT;
    *all = memory::total();
    *free = *all - memory::used(current->device);
    return OK;
}
API cuDeviceGetDefaultMemPool(void** pool, int device) {
    *pool = &contexts[device];
    return pools() ? OK : NOT_SUPPORTED;
}
API cuDeviceGetMemPool(void** pool, int device) { return cuDeviceGetDefaultMemPool(pool, device); }
API cuMemPoolSetAttribute(void*, int, void*) { return pools() ? OK : NOT_SUPPORTED; }
API cuMemPoolTrimTo(void*, size_t) { return pools() ? OK : NOT_SUPPORTED; }

static CUresult allocate(uintptr_t* to, size_t bytes) {
    if (bytes == 0) return INVALID_VALUE;
    if (memory::used(current->device) + bytes > memory::total()) flush_all();
    return memory::allocate(current->device, to, bytes) ? OK : OUT_OF_MEMORY;
}
API cuMemAlloc_v2(uintptr_t* to, size_t bytes) {
    CONTEXT;
    if (forbidden()) return CAPTURE_UNSUPPORTED;
    return allocate(to, bytes);
}
API cuMemFree_v2(uintptr_t at) {
    CONTEXT;
    if (forbidden()) return CAPTURE_UNSUPPORTED;
    if (!at) return OK;
    flush_all();
    memory::release(at, current->device);
    return OK;
}
API cuMemAllocAsync(uintptr_t* to, size_t bytes, void* stream) {
    CONTEXT;
    if (!pools()) return NOT_SUPPORTED;
    // A real device would make it a node of the graph, with memory that cannot be used outside the graph.
    if (stream_of(stream).capture) objection("an allocation while the stream is captured");
    return allocate(to, bytes);
}
API cuMemFreeAsync(uintptr_t at, void* stream) {
    CONTEXT;
    if (!pools()) return NOT_SUPPORTED;
    if (!at) return OK;
    if (stream_of(stream).capture) objection("memory is freed while the stream is captured");
    const int device = current->device;
    return enqueue(stream, [=] { memory::release(at, device); });
}

API cuMemHostAlloc(void** to, size_t bytes, unsigned) {
    CONTEXT;
    if (forbidden()) return CAPTURE_UNSUPPORTED;
    if (bytes == 0) return INVALID_VALUE;
    *to = memory::allocate_host(bytes);
    return *to ? OK : OUT_OF_MEMORY;
}
API cuMemAllocHost_v2(void** to, size_t bytes) { return cuMemHostAlloc(to, bytes, 0); }
API cuMemFreeHost(void* at) {
    CONTEXT;
    if (forbidden()) return CAPTURE_UNSUPPORTED;
    if (!memory::release_host(at)) objection("free of %p, which is not pinned host memory", at);
    return OK;
}

// ---- Copies and fills ----

static void copy_up(uintptr_t to, const void* from, size_t bytes) {
    memory::check("copy to the device", reinterpret_cast<void*>(to), bytes);
    memcpy(reinterpret_cast<void*>(to), from, bytes);
    report::copies_up.add(double(bytes));
}
static void copy_down(void* to, uintptr_t from, size_t bytes) {
    memory::check("copy from the device", reinterpret_cast<void*>(from), bytes);
    memcpy(to, reinterpret_cast<void*>(from), bytes);
    report::copies_down.add(double(bytes));
}
static void copy_across(uintptr_t to, uintptr_t from, size_t bytes) {
    memory::check("copy on the device", reinterpret_cast<void*>(from), bytes);
    memory::check("copy on the device", reinterpret_cast<void*>(to), bytes);
    if (from < to + bytes && to < from + bytes) objection("copy on the device: the ranges overlap");
    memcpy(reinterpret_cast<void*>(to), reinterpret_cast<void*>(from), bytes);
    report::copies_across.add(double(bytes));
}
static void still_pinned(const void* at) {
    if (!memory::is_pinned(at)) objection("pinned memory was freed before the copy that uses it was done");
}

API cuMemcpyHtoDAsync_v2(uintptr_t to, const void* from, size_t bytes, void* stream) {
    CONTEXT;
    if (memory::is_pinned(from))
        return enqueue(stream, [=] {
            still_pinned(from);
            copy_up(to, from, bytes);
        });
    if (lose_capture(stream_of(stream))) return CAPTURE_UNSUPPORTED;
    if (!deferred()) {
        copy_up(to, from, bytes);
        return OK;
    }
    // The driver stages copies from and to memory that is not pinned.
    const char* bytes_from = static_cast<const char*>(from);
    const auto staged = std::make_shared<std::vector<char>>(bytes_from, bytes_from + bytes);
    return enqueue(stream, [=] { copy_up(to, staged->data(), bytes); });
}
API cuMemcpyDtoHAsync_v2(void* to, uintptr_t from, size_t bytes, void* stream) {
    CONTEXT;
    if (memory::is_pinned(to))
        return enqueue(stream, [=] {
            still_pinned(to);
            copy_down(to, from, bytes);
        });
    if (lose_capture(stream_of(stream))) return CAPTURE_UNSUPPORTED;
    return enqueue(stream, [=] { copy_down(to, from, bytes); });
}
API cuMemcpyDtoDAsync_v2(uintptr_t to, uintptr_t from, size_t bytes, void* stream) {
    CONTEXT;
    if (bytes == 0) return OK;
    return enqueue(stream, [=] { copy_across(to, from, bytes); });
}
static CUresult fill(uintptr_t to, unsigned value, unsigned value_bytes, size_t count, void* stream) {
    return enqueue(stream, [=] {
        memory::check("fill", reinterpret_cast<void*>(to), value_bytes * count);
        memory::fill(to, value, value_bytes, count);
        report::fills.add(double(value_bytes * count));
    });
}
API cuMemsetD8Async(uintptr_t to, unsigned char value, size_t count, void* stream) {
    CONTEXT;
    return fill(to, value, 1, count, stream);
}
API cuMemsetD32Async(uintptr_t to, unsigned value, size_t count, void* stream) {
    CONTEXT;
    if (to % 4) return INVALID_VALUE;
    return fill(to, value, 4, count, stream);
}
// The synchronous versions wait for work in the null stream.
static CUresult after(CUresult result) {
    if (result == OK) flush(null_stream());
    return result;
}
API cuMemcpyHtoD_v2(uintptr_t to, const void* from, size_t bytes) {
    CONTEXT;
    if (forbidden()) return CAPTURE_IMPLICIT;
    return after(cuMemcpyHtoDAsync_v2(to, from, bytes, nullptr));
}
API cuMemcpyDtoH_v2(void* to, uintptr_t from, size_t bytes) {
    CONTEXT;
    if (forbidden()) return CAPTURE_IMPLICIT;
    return after(cuMemcpyDtoHAsync_v2(to, from, bytes, nullptr));
}
API cuMemcpyDtoD_v2(uintptr_t to, uintptr_t from, size_t bytes) {
    CONTEXT;
    if (forbidden()) return CAPTURE_IMPLICIT;
    return cuMemcpyDtoDAsync_v2(to, from, bytes, nullptr);
}
API cuMemsetD8_v2(uintptr_t to, unsigned char value, size_t count) {
    CONTEXT;
    if (forbidden()) return CAPTURE_IMPLICIT;
    return cuMemsetD8Async(to, value, count, nullptr);
}
API cuMemsetD32_v2(uintptr_t to, unsigned value, size_t count) {
    CONTEXT;
    if (forbidden()) return CAPTURE_IMPLICIT;
    return cuMemsetD32Async(to, value, count, nullptr);
}

// ---- Streams and graphs ----

API cuStreamCreate(void** stream, unsigned flags) {
    CONTEXT;
    Stream it;
    it.device = current->device;
    it.blocking = !(flags & 1);
    *stream = streams.make(std::move(it));
    return OK;
}
API cuStreamCreateWithPriority(void** stream, unsigned flags, int) { return cuStreamCreate(stream, flags); }
API cuStreamDestroy_v2(void* stream) {
    CONTEXT;
    if (is_null(stream)) return INVALID_HANDLE;
    if (streams.get(stream).capture) objection("a stream is destroyed while it is captured");
    flush(streams.get(stream));
    streams.destroy(stream);
    return OK;
}
API cuStreamSynchronize(void* stream) {
    CONTEXT;
    if (lose_capture(stream_of(stream))) return CAPTURE_UNSUPPORTED;
    ++report::totals.waits;
    flush(stream_of(stream));
    return OK;
}
API cuStreamQuery(void* stream) {
    CONTEXT;
    if (lose_capture(stream_of(stream))) return CAPTURE_UNSUPPORTED;
    return stream_of(stream).queue.empty() ? OK : NOT_READY;
}
API cuStreamWaitEvent(void* stream, void* event, unsigned) {
    CONTEXT;
    Stream& waits = stream_of(stream);
    const auto mark = events.get(event).mark;
    if (!mark) return OK;
    if (waits.capture || mark->stream->capture) objection("events between streams that are captured are not emulated");
    wait_for(waits, mark);
    return OK;
}
API cuStreamIsCapturing(void* stream, int* status) {
    CONTEXT;
    const Stream& it = stream_of(stream);
    *status = !it.capture ? 0 : it.invalidated ? 2 : 1;
    return OK;
}
API cuStreamBeginCapture_v2(void* stream, int mode) {
    CONTEXT;
    Stream& it = stream_of(stream);
    if (&it == &null_stream()) return CAPTURE_UNSUPPORTED;
    if (it.capture) return ILLEGAL_STATE;
    it.capture = std::make_unique<Graph>();
    it.capture_mode = mode;
    it.captured_by = gettid();
    it.invalidated = false;
    return OK;
}
API cuStreamEndCapture(void* stream, void** graph) {
    CONTEXT;
    Stream& it = stream_of(stream);
    if (!it.capture) return ILLEGAL_STATE;
    const std::unique_ptr<Graph> captured = std::move(it.capture);
    *graph = nullptr;
    if (it.invalidated) return CAPTURE_INVALIDATED;
    ++report::totals.graphs;
    *graph = graphs.make(std::move(*captured));
    return OK;
}
API cuGraphInstantiateWithFlags(void** executable, void* graph, unsigned long long) {
    CONTEXT;
    ++report::totals.instantiated;
    *executable = executables.make(graphs.get(graph));
    return OK;
}
API cuGraphInstantiate(void** executable, void* graph, unsigned long long flags) {
    return cuGraphInstantiateWithFlags(executable, graph, flags);
}
API cuGraphUpload(void* executable, void* stream) {
    CONTEXT;
    executables.get(executable);
    stream_of(stream);
    return OK;
}
API cuGraphLaunch(void* executable, void* stream) {
    CONTEXT;
    if (stream_of(stream).capture) objection("a graph within a graph is not emulated");
    ++report::totals.graph_launches;
    for (const Work& node : executables.get(executable).nodes) {
        enqueue(stream, [node] {
            report::in_graph = true;
            node();
            report::in_graph = false;
        });
    }
    return OK;
}
API cuGraphGetNodes(void* graph, void** nodes, size_t* count) {
    CONTEXT;
    if (nodes) return NOT_SUPPORTED;
    *count = graphs.get(graph).nodes.size();
    return OK;
}
API cuGraphDestroy(void* graph) {
    CONTEXT;
    graphs.destroy(graph);
    return OK;
}
API cuGraphExecDestroy(void* executable) {
    CONTEXT;
    executables.destroy(executable);
    return OK;
}

// ---- Events ----

API cuEventCreate(void** event, unsigned flags) {
    CONTEXT;
    Event it;
    it.timed = !(flags & 2);
    *event = events.make(std::move(it));
    return OK;
}
API cuEventDestroy_v2(void* event) {
    CONTEXT;
    events.destroy(event);
    return OK;
}
API cuEventRecord(void* event, void* stream) {
    CONTEXT;
    Stream& it = stream_of(stream);
    if (it.capture) objection("an event in a stream that is captured is not emulated");
    order_with_null(it);
    events.get(event).mark = mark_end(it);
    return OK;
}
API cuEventSynchronize(void* event) {
    CONTEXT;
    if (forbidden()) return CAPTURE_UNSUPPORTED;
    ++report::totals.waits;
    const auto mark = events.get(event).mark;
    if (mark && !mark->done) flush(*mark->stream, mark.get());
    return OK;
}
API cuEventQuery(void* event) {
    CONTEXT;
    if (forbidden()) return CAPTURE_UNSUPPORTED;
    return poll(events.get(event).mark);
}
API cuEventElapsedTime(float* milliseconds, void* start, void* end) {
    CONTEXT;
    const Event &a = events.get(start), &b = events.get(end);
    if (!a.timed || !b.timed || !a.mark || !b.mark) return INVALID_HANDLE;
    if (!a.mark->done || !b.mark->done) return NOT_READY;
    *milliseconds = std::chrono::duration<float, std::milli>(b.mark->at - a.mark->at).count();
    return OK;
}
API cuEventElapsedTime_v2(float* milliseconds, void* start, void* end) {
    return cuEventElapsedTime(milliseconds, start, end);
}

// ---- Kernels ----

// A cubin, a fat binary or PTX. Its kernels are not read: the kernels that were compiled for this device are used.
static bool is_image(const void* image) {
    const unsigned magic = value_at<unsigned>(image);
    return magic == 0x464c457f || magic == 0xba55ed50 || magic == 0x466243b1 || !strncmp(static_cast<const char*>(image), "//", 2) ||
           !strncmp(static_cast<const char*>(image), ".version", 8) || !strncmp(static_cast<const char*>(image), "emulated", 8);
}
API cuModuleLoadData(void** module, const void* image) {
    CONTEXT;
    if (!image || !is_image(image)) return INVALID_IMAGE;
    libraries();
    *module = modules.make({});
    return OK;
}
API cuModuleUnload(void* module) {
    CONTEXT;
    Module& it = modules.get(module);
    for (auto& [name, function] : it.functions) {
        if (function.under_way) objection("a module is unloaded while its kernel %s is under way", name.c_str());
        functions[&function] = false;
    }
    // Its functions are kept, so that later uses are detected.
    new std::map<std::string, Function>(std::move(it.functions));
    modules.destroy(module);
    return OK;
}
API cuModuleGetFunction(void** found, void* module, const char* name) {
    CONTEXT;
    Module& it = modules.get(module);
    for (const Library* library : libraries()) {
        for (size_t i = 0; i < library->count; ++i) {
            const Kernel& kernel = library->kernels[i];
            if (strcmp(kernel.name, name)) continue;
            Function& function = it.functions[name];
            function.kernel = &kernel;
            function.library = library;
            function.count = &report::kernels[name];
            functions[&function] = true;
            *found = &function;
            return OK;
        }
    }
    return NOT_FOUND;
}
API cuFuncGetAttribute(int* value, int attribute, void* handle) {
    CONTEXT;
    const Function& it = function_of(handle);
    switch (attribute) {
        case 0: *value = int(it.kernel->most_threads); break;
        case 8: *value = it.dynamic_shared; break;
        default: *value = 0;  // static shared memory and registers are not known
    }
    return OK;
}
API cuFuncSetAttribute(void* handle, int attribute, int value) {
    CONTEXT;
    Function& it = function_of(handle);
    if (attribute != 8) return OK;
    if (value < 0 || value > profile().shared_optin) return INVALID_VALUE;
    it.dynamic_shared = value;
    return OK;
}
API cuFuncGetParamInfo(void* handle, size_t index, size_t* offset, size_t* size) {
    CONTEXT;
    const Kernel& kernel = *function_of(handle).kernel;
    if (index >= kernel.parameter_count) return INVALID_VALUE;
    if (offset) *offset = parameter_offset(kernel, index);
    if (size) *size = kernel.parameters[index].size;
    return OK;
}
API cuOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, void* handle, int threads, size_t shared) {
    CONTEXT;
    function_of(handle);
    const size_t by_shared = size_t(profile().shared_sm) / (shared + 1024);
    *blocks = int(std::min<size_t>({by_shared, size_t(2048 / std::max(threads, 1)), 32}));
    return OK;
}
API cuLaunchKernel(
    void* handle, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x, unsigned block_y, unsigned block_z,
    unsigned shared, void* stream, void** parameters, void** extra) {
    CONTEXT;
    Function& function = function_of(handle);
    const Kernel& kernel = *function.kernel;
    if (extra || (kernel.parameter_count && !parameters)) return INVALID_VALUE;
    if (stream_of(stream).device != current->device)
        objection("%s: a stream of device %d on device %d", kernel.name, stream_of(stream).device, current->device);
    if (!grid_x || !grid_y || !grid_z || grid_x > 2147483647u || grid_y > 65535 || grid_z > 65535)
        objection(
            "%s: a grid of %u x %u x %u blocks; expected 1 to 2147483647 x 65535 x 65535", kernel.name, grid_x, grid_y, grid_z);
    const size_t threads = size_t(block_x) * block_y * block_z;
    if (threads == 0 || threads > kernel.most_threads || block_z > 64)
        objection("%s: a block of %zu threads; the kernel is compiled for 1 to %u", kernel.name, threads, kernel.most_threads);
    if (threads % 32) objection("%s: a block of %zu threads, which is not a multiple of 32", kernel.name, threads);
    if (shared > unsigned(function.dynamic_shared))
        objection(
            "%s: %u bytes of dynamic shared memory; at most %d are allowed", kernel.name, shared, function.dynamic_shared);
    Launched launched{
        &function, {grid_x, grid_y, grid_z}, {block_x, block_y, block_z}, shared, current->device, {}, {}, 0, false};
    launched.packed.resize(kernel.packed_bytes);
    kernel.pack(parameters, launched.packed.data());
    for (size_t i = 0; i < kernel.parameter_count; ++i)
        if (kernel.parameters[i].pointer) launched.pointers.push_back({i, value_at<void*>(parameters[i])});
    check_arguments(kernel, current->device, launched.pointers);
    launched.checked = memory::releases();
    launched.put_off = deferred() && !stream_of(stream).capture;
    function.under_way += launched.put_off;
    return enqueue(stream, std::move(launched));
}
API cuLaunchHostFunc(void* stream, void (*function)(void*), void* data) {
    CONTEXT;
    return enqueue(stream, [=] { function(data); });
}

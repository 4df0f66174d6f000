// Tests of the emulated device's checks and results. Each case is one program run, `objections CASE`. It calls the driver and
// cublasLt as `rft` does, with the kernels of mistakes.cu. tests/it/device/objections.rs lists the cases with the expected
// output of each.

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <unistd.h>
#include <utility>
#include <vector>

// ---- The interface, as in cuda.h and cublasLt.h ----

typedef uintptr_t Pointer;
typedef void* Handle;

extern "C" {
int cuInit(unsigned);
int cuDeviceGetName(char*, int, int);
int cuDeviceTotalMem_v2(size_t*, int);
int cuDeviceGetAttribute(int*, int, int);
int cuGetErrorName(int, const char**);
int cuDevicePrimaryCtxRetain(Handle*, int);
int cuDevicePrimaryCtxRelease_v2(int);
int cuCtxSetCurrent(Handle);
int cuCtxSynchronize();
int cuMemGetInfo_v2(size_t*, size_t*);
int cuMemAlloc_v2(Pointer*, size_t);
int cuMemFree_v2(Pointer);
int cuMemAllocAsync(Pointer*, size_t, Handle);
int cuMemFreeAsync(Pointer, Handle);
int cuMemHostAlloc(void**, size_t, unsigned);
int cuMemFreeHost(void*);
int cuMemcpyHtoD_v2(Pointer, const void*, size_t);
int cuMemcpyDtoH_v2(void*, Pointer, size_t);
int cuMemcpyHtoDAsync_v2(Pointer, const void*, size_t, Handle);
int cuMemcpyDtoHAsync_v2(void*, Pointer, size_t, Handle);
int cuMemcpyDtoDAsync_v2(Pointer, Pointer, size_t, Handle);
int cuMemsetD32Async(Pointer, unsigned, size_t, Handle);
int cuStreamCreate(Handle*, unsigned);
int cuStreamDestroy_v2(Handle);
int cuStreamSynchronize(Handle);
int cuStreamQuery(Handle);
int cuStreamWaitEvent(Handle, Handle, unsigned);
int cuStreamBeginCapture_v2(Handle, int);
int cuStreamEndCapture(Handle, Handle*);
int cuGraphInstantiateWithFlags(Handle*, Handle, unsigned long long);
int cuGraphLaunch(Handle, Handle);
int cuGraphDestroy(Handle);
int cuGraphExecDestroy(Handle);
int cuEventCreate(Handle*, unsigned);
int cuEventDestroy_v2(Handle);
int cuEventRecord(Handle, Handle);
int cuEventQuery(Handle);
int cuEventSynchronize(Handle);
int cuEventElapsedTime(float*, Handle, Handle);
int cuModuleLoadData(Handle*, const void*);
int cuModuleUnload(Handle);
int cuModuleGetFunction(Handle*, Handle, const char*);
int cuFuncSetAttribute(Handle, int, int);
int cuFuncGetParamInfo(Handle, size_t, size_t*, size_t*);
int cuLaunchKernel(
    Handle, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, Handle, void**, void**);

struct Algorithm {
    uint64_t data[8];
};
struct Found {
    Algorithm algorithm;
    size_t workspace;
    int state;
    float waves;
    int reserved[4];
};
int cublasLtCreate(Handle*);
int cublasLtMatrixLayoutCreate(Handle*, int, uint64_t, uint64_t, int64_t);
int cublasLtMatrixLayoutDestroy(Handle);
int cublasLtMatmulDescCreate(Handle*, int, int);
int cublasLtMatmulDescSetAttribute(Handle, int, const void*, size_t);
int cublasLtMatmulPreferenceCreate(Handle*);
int cublasLtMatmulPreferenceSetAttribute(Handle, int, const void*, size_t);
int cublasLtMatmulAlgoGetHeuristic(Handle, Handle, Handle, Handle, Handle, Handle, Handle, int, Found*, int*);
int cublasLtMatmulAlgoCheck(Handle, Handle, Handle, Handle, Handle, Handle, const Algorithm*, Found*);
int cublasLtMatmul(
    Handle, Handle, const void*, const void*, Handle, const void*, Handle, const void*, const void*, Handle, void*,
    Handle, const Algorithm*, void*, size_t, Handle);
}

// ---- Helpers ----

constexpr int VALUES = 64;
constexpr size_t BYTES = 4 * VALUES;

static std::string name_of(int error) {
    const char* name;
    cuGetErrorName(error, &name);
    return name;
}

// Ends the program if the case itself fails.
static void ok(int error, const char* what) {
    if (error == 0) return;
    fprintf(stderr, "%s: %s\n", what, name_of(error).c_str());
    _exit(1);
}
#define OK(CALL) ok(CALL, #CALL)

static void show(const char* what, int error) { printf("%s: %s\n", what, name_of(error).c_str()); }

static Handle context, module, stream;

static void start(int device = 0) {
    OK(cuInit(0));
    OK(cuDevicePrimaryCtxRetain(&context, device));
    OK(cuCtxSetCurrent(context));
    OK(cuModuleLoadData(&module, "emulated"));
    OK(cuStreamCreate(&stream, 1));
}

static Pointer allocate(size_t bytes = BYTES) {
    Pointer at;
    OK(cuMemAlloc_v2(&at, bytes));
    return at;
}

static Pointer with_values(std::function<float(int)> value = [](int i) { return float(i + 1); }) {
    const Pointer at = allocate();
    float values[VALUES];
    for (int i = 0; i < VALUES; ++i) values[i] = value(i);
    OK(cuMemcpyHtoD_v2(at, values, BYTES));
    return at;
}

static Handle function(const char* name) {
    Handle it;
    OK(cuModuleGetFunction(&it, module, name));
    return it;
}

struct Shape {
    unsigned blocks = 1, blocks_y = 1, threads = 64, shared = 256;
};

// kernel(x, y)
static void launch(Handle kernel, Pointer x, Pointer y, Shape shape = {}, Handle in = nullptr) {
    void* parameters[] = {&x, &y};
    OK(cuLaunchKernel(
        kernel, shape.blocks, shape.blocks_y, 1, shape.threads, 1, 1, shape.shared, in, parameters, nullptr));
}
static void launch(const char* kernel, Shape shape = {}) { launch(function(kernel), with_values(), allocate(), shape); }

static std::vector<float> values_of(Pointer at, int count = VALUES) {
    std::vector<float> values(count);
    OK(cuMemcpyDtoH_v2(values.data(), at, 4 * count));
    return values;
}

// Prints the result of a kernel for 1, 1/2, 1/3, ...: the number of NaN values, and a hash of their bits.
static void print_result_of(const char* kernel) {
    const Pointer x = with_values([](int i) { return 1.0f / float(i + 1); }), y = allocate();
    launch(function(kernel), x, y);
    OK(cuCtxSynchronize());
    const std::vector<float> values = values_of(y);
    size_t nan = 0;
    for (const float value : values) nan += std::isnan(value);
    uint64_t hash = 14695981039346656037u;
    for (size_t i = 0; i < BYTES; ++i) hash = (hash ^ reinterpret_cast<const unsigned char*>(values.data())[i]) * 1099511628211u;
    printf("%zu NaN, first %g", nan, fabsf(values[0]));
    if (!nan) printf(", hash %016llx", static_cast<unsigned long long>(hash));
}

static float* pinned(size_t bytes = BYTES) {
    void* at;
    OK(cuMemHostAlloc(&at, bytes, 0));
    return static_cast<float*>(at);
}

static Handle event(unsigned flags = 0) {
    Handle it;
    OK(cuEventCreate(&it, flags));
    return it;
}

// The graph of the work that `work` puts into the stream.
static Handle graph(std::function<void()> work) {
    Handle captured, executable;
    OK(cuStreamBeginCapture_v2(stream, 1));
    work();
    OK(cuStreamEndCapture(stream, &captured));
    OK(cuGraphInstantiateWithFlags(&executable, captured, 0));
    OK(cuGraphDestroy(captured));
    return executable;
}

// Returns the result of `call`, which is forbidden during a capture, and the result of ending the capture that it invalidates.
static void during_a_capture(const char* what, std::function<int()> call) {
    Handle captured;
    OK(cuStreamBeginCapture_v2(stream, 1));
    show(what, call());
    show("end of the capture", cuStreamEndCapture(stream, &captured));
}

// ---- Products ----

enum { F32 = 0, BF16 = 14, COMPUTE_F32 = 68 };

static float widened(uint16_t bits) {
    const uint32_t wide = uint32_t(bits) << 16;
    float it;
    memcpy(&it, &wide, 4);
    return it;
}

// out (m, n) f32 = transposed a (k, m) · b (k, n), column-major, of bf16.
struct Product {
    uint64_t m = 64, n = 48, k = 512;
    Handle blas, description, of_a, of_b, of_out, preference;
    std::vector<uint16_t> values_a, values_b;
    Pointer a, b, out, workspace;
    uint64_t workspace_bytes = 4 << 20;
    std::vector<Found> found = std::vector<Found>(4);
    int count = 0;

    explicit Product(uint64_t rows_of_a = 512, int type = BF16) {
        OK(cublasLtCreate(&blas));
        OK(cublasLtMatmulDescCreate(&description, COMPUTE_F32, F32));
        const int yes = 1;
        OK(cublasLtMatmulDescSetAttribute(description, 3, &yes, 4));
        OK(cublasLtMatrixLayoutCreate(&of_a, type, rows_of_a, m, int64_t(rows_of_a)));
        OK(cublasLtMatrixLayoutCreate(&of_b, BF16, k, n, int64_t(k)));
        OK(cublasLtMatrixLayoutCreate(&of_out, F32, m, n, int64_t(m)));
        OK(cublasLtMatmulPreferenceCreate(&preference));
        prefer(workspace_bytes);
        a = operand(values_a, k * m, 1), b = operand(values_b, k * n, 2);
        out = allocate(4 * m * n), workspace = allocate(workspace_bytes);
    }
    void prefer(uint64_t bytes) { OK(cublasLtMatmulPreferenceSetAttribute(preference, 1, &bytes, 8)); }

    // Values of different magnitudes, so that the order of a sum changes its bits.
    static Pointer operand(std::vector<uint16_t>& values, size_t count, uint64_t seed) {
        for (size_t i = 0; i < count; ++i) {
            seed = seed * 6364136223846793005u + 1442695040888963407u;
            values.push_back(uint16_t((seed >> 33 & 1) << 15 | (0x3c00 + (seed >> 34 & 0x3ff))));
        }
        const Pointer at = allocate(2 * count);
        OK(cuMemcpyHtoD_v2(at, values.data(), 2 * count));
        return at;
    }
    int choose(int wanted = 4) {
        return cublasLtMatmulAlgoGetHeuristic(
            blas, description, of_a, of_b, of_out, of_out, preference, wanted, found.data(), &count);
    }
    void multiply(int choice = 0) {
        const float one = 1, zero = 0;
        void* const to = reinterpret_cast<void*>(out);
        OK(cublasLtMatmul(
            blas, description, &one, reinterpret_cast<void*>(a), of_a, reinterpret_cast<void*>(b), of_b, &zero, to,
            of_out, to, of_out, &found[choice].algorithm, reinterpret_cast<void*>(workspace), workspace_bytes, stream));
    }
    // The largest difference to the product in f64, relative to the largest value.
    double error(const std::vector<float>& got) const {
        double worst = 0, greatest = 0;
        for (uint64_t j = 0; j < n; ++j) {
            for (uint64_t i = 0; i < m; ++i) {
                double sum = 0;
                for (uint64_t x = 0; x < k; ++x) sum += double(widened(values_a[i * k + x])) * widened(values_b[j * k + x]);
                worst = fmax(worst, fabs(sum - got[j * m + i]));
                greatest = fmax(greatest, fabs(sum));
            }
        }
        return worst / greatest;
    }
};

// ---- Cases ----

static const std::pair<const char*, void (*)()> CASES[] = {
    // Memory.
    {"copy from freed memory",
     [] {
         const Pointer x = with_values();
         OK(cuMemFree_v2(x));
         values_of(x);
     }},
    {"kernel on freed memory",
     [] {
         const Pointer x = with_values();
         OK(cuMemFree_v2(x));
         launch(function("sum_with_barriers"), x, allocate());
     }},
    {"kernel on freed memory, in the order of the stream",
     [] {
         const Pointer x = with_values(), y = allocate();
         OK(cuMemFreeAsync(x, stream));
         launch(function("sum_with_barriers"), x, y, {}, stream);
         OK(cuStreamSynchronize(stream));
     }},
    {"fill of foreign memory", [] { OK(cuMemsetD32Async(Pointer(malloc(BYTES)), 0, VALUES, stream)); }},
    {"kernel on foreign memory", [] { launch(function("sum_with_barriers"), Pointer(malloc(BYTES)), allocate()); }},
    {"memory of another device",
     [] {
         const Pointer x = with_values();
         start(1);
         launch(function("sum_with_barriers"), x, allocate());
     }},
    {"free twice",
     [] {
         const Pointer x = allocate();
         OK(cuMemFree_v2(x));
         OK(cuMemFree_v2(x));
     }},
    {"free in the middle", [] { OK(cuMemFree_v2(allocate() + 16)); }},
    {"free of foreign host memory", [] { OK(cuMemFreeHost(malloc(16))); }},
    {"copy past the end",
     [] {
         const std::vector<char> more(BYTES + 4);
         OK(cuMemcpyHtoD_v2(allocate(), more.data(), more.size()));
     }},
    {"fill past the end", [] { OK(cuMemsetD32Async(allocate() + 16, 0, VALUES, stream)); }},
    {"copy between overlapping ranges",
     [] {
         const Pointer x = with_values();
         OK(cuMemcpyDtoDAsync_v2(x + 16, x, BYTES / 2, stream));
     }},
    {"host reads freed memory",
     [] {
         const Pointer x = with_values();
         OK(cuMemFree_v2(x));
         printf("%g", *reinterpret_cast<volatile float*>(x));
     }},
    {"kernel writes past the end", [] { launch("writes_past_the_end"); }},
    {"kernel reads past the end", [] { launch("reads_past_the_end"); }},
    {"kernel writes past an end that is not aligned, found when it is freed",
     [] {
         const Pointer y = allocate(BYTES - 4);
         launch(function("sum_with_barriers"), with_values(), y);
         OK(cuMemFree_v2(y));
     }},
    {"kernel writes past an end that is not aligned, found when the program ends",
     [] { launch(function("sum_with_barriers"), with_values(), allocate(BYTES - 4)); }},
    {"kernel reads past an end that is not aligned",
     [] {
         const Pointer x = allocate(BYTES - 4);
         OK(cuMemsetD32Async(x, 0, VALUES - 1, nullptr));
         launch(function("sum_with_barriers"), x, allocate());
         printf("nothing was found");
     }},
    {"kernel writes to a constant", [] { launch("writes_to_a_constant"); }},
    {"argument that is not aligned", [] { launch(function("sum_with_barriers"), with_values() + 2, allocate()); }},
    {"access that is not aligned", [] { launch("misaligned"); }},
    {"index out of bounds", [] { launch("index_out_of_bounds"); }},
    {"fresh memory is NaN", [] { printf("%d", std::isnan(values_of(allocate())[0])); }},
    {"more memory than there is",
     [] {
         size_t free, all;
         OK(cuMemGetInfo_v2(&free, &all));
         Pointer at;
         printf("%zu MiB\n", all >> 20);
         show("all and one byte", cuMemAlloc_v2(&at, all + 1));
         show("all", cuMemAlloc_v2(&at, all));
         show("one byte more", cuMemAlloc_v2(&at, 1));
         OK(cuMemFree_v2(at));
         show("after it was freed", cuMemAlloc_v2(&at, 1));
     }},
    {"third allocation fails",
     [] {
         Pointer at;
         for (const char* which : {"first", "second"}) show(which, cuMemAlloc_v2(&at, 16));
         show("third", cuMemAllocAsync(&at, 16, stream));
         show("fourth", cuMemAlloc_v2(&at, 16));
     }},
    // The GPU.
    {"attributes",
     [] {
         char name[64];
         int major, minor, shared, processors, pools;
         size_t bytes;
         OK(cuDeviceGetName(name, sizeof name, 0));
         OK(cuDeviceGetAttribute(&major, 75, 0));
         OK(cuDeviceGetAttribute(&minor, 76, 0));
         OK(cuDeviceGetAttribute(&shared, 97, 0));
         OK(cuDeviceGetAttribute(&processors, 16, 0));
         OK(cuDeviceGetAttribute(&pools, 115, 0));
         OK(cuDeviceTotalMem_v2(&bytes, 0));
         printf(
             "%s, %d.%d, %d bytes a block, %d multiprocessors, pools %d, %zu MiB\n", name, major, minor, shared, processors,
             pools, bytes >> 20);
         const Handle kernel = function("sum_with_barriers");
         show("100 KiB of shared memory", cuFuncSetAttribute(kernel, 8, 100 << 10));
         Pointer at;
         show("allocation in a pool", cuMemAllocAsync(&at, 16, stream));
     }},
    // Launches.
    {"grid without blocks", [] { launch("sum_with_barriers", {0}); }},
    {"grid too high", [] { launch("sum_with_barriers", {1, 65536}); }},
    {"block too large", [] { launch("sum_with_barriers", {1, 1, 1056}); }},
    {"block larger than the kernel's bound", [] { launch("at_most_128_threads", {1, 1, 160}); }},
    {"half a warp", [] { launch("sum_with_barriers", {1, 1, 48}); }},
    {"too much shared memory", [] { launch("sum_with_barriers", {1, 1, 64, (48 << 10) + 16}); }},
    {"as much shared memory as was asked for",
     [] {
         const Handle kernel = function("sum_with_barriers");
         OK(cuFuncSetAttribute(kernel, 8, 64 << 10));
         launch(kernel, with_values(), allocate(), {1, 1, 64, 64 << 10});
         printf("launched");
     }},
    {"parameters of a kernel",
     [] {
         size_t offset, size;
         for (size_t i = 0; i < 4; ++i) {
             OK(cuFuncGetParamInfo(function("product"), i, &offset, &size));
             printf("%zu at %zu, ", size, offset);
         }
         show("then", cuFuncGetParamInfo(function("product"), 4, &offset, &size));
     }},
    {"unknown kernel",
     [] {
         Handle it;
         show("no_such_kernel", cuModuleGetFunction(&it, module, "no_such_kernel"));
     }},
    {"not an image", [] { show("an image", cuModuleLoadData(&module, "what is this?")); }},
    {"kernel of an unloaded module",
     [] {
         const Handle kernel = function("sum_with_barriers");
         OK(cuModuleUnload(module));
         launch(kernel, with_values(), allocate());
     }},
    {"module unloaded while its kernel is under way",
     [] {
         launch(function("sum_with_barriers"), with_values(), allocate(), {}, stream);
         OK(cuModuleUnload(module));
     }},
    {"stream of another device",
     [] {
         const Handle other = stream;
         start(1);
         launch(function("sum_with_barriers"), with_values(), allocate(), {}, other);
     }},
    // Kernels.
    {"barrier for some", [] { launch("barrier_for_some"); }},
    {"barriers in two branches", [] { launch("barriers_in_two_branches"); }},
    {"shuffle for some", [] { launch("shuffle_for_some"); }},
    {"shuffle from outside", [] { launch("shuffle_from_outside"); }},
    {"mask without the caller", [] { launch("mask_without_the_caller"); }},
    {"lane that does not exist", [] { launch("lane_that_does_not_exist"); }},
    {"different warp functions", [] { launch("different_warp_functions"); }},
    {"write past shared memory", [] { launch("writes_past_shared_memory"); }},
    {"copy without a wait", [] { launch("copy_without_a_wait"); }},
    {"copy to global memory", [] { launch("copy_to_global_memory"); }},
    {"rows that are not aligned", [] { launch("rows_that_are_not_aligned"); }},
    {"reads what nobody wrote", [] { print_result_of("reads_what_nobody_wrote"); }},
    {"copy read too early", [] { print_result_of("copy_read_too_early"); }},
    // The results of these must depend on the order of threads and blocks ...
    {"sum without a barrier", [] { print_result_of("sum_without_a_barrier"); }},
    {"shared memory written again too early", [] { print_result_of("shared_memory_written_again_too_early"); }},
    {"copy without a barrier", [] { print_result_of("copy_without_a_barrier"); }},
    {"blocks that depend on each other",
     [] {
         Pointer y = allocate();
         void* parameters[] = {&y};
         OK(cuLaunchKernel(
             function("blocks_that_depend_on_each_other"), 4, 1, 1, 32, 1, 1, 0, nullptr, parameters, nullptr));
         for (const float value : values_of(y, 4)) printf("%g ", value);
     }},
    // ... and the results of these must not.
    {"sum with barriers", [] { print_result_of("sum_with_barriers"); }},
    {"copy as it should be", [] { print_result_of("copy_as_it_should_be"); }},
    {"tensor cores multiply",
     [] {
         std::vector<uint16_t> a, b;
         Pointer at_a = Product::operand(a, 16 * 64, 1);
         Product::operand(b, 64 * 16, 2);
         for (int transposed : {0, 1}) {
             std::vector<uint16_t> order = b;
             if (transposed)
                 for (int i = 0; i < 16 * 64; ++i) order[i] = b[i % 64 * 16 + i / 64];
             Pointer at_b = allocate(2 * order.size()), c = allocate(4 * 256);
             OK(cuMemcpyHtoD_v2(at_b, order.data(), 2 * order.size()));
             void* parameters[] = {&at_a, &at_b, &c, &transposed};
             OK(cuLaunchKernel(function("product"), 1, 1, 1, 32, 1, 1, 4096, nullptr, parameters, nullptr));
             double worst = 0;
             const std::vector<float> got = values_of(c, 256);
             for (int i = 0; i < 256; ++i) {
                 double sum = 0;
                 for (int k = 0; k < 64; ++k) sum += double(widened(a[i / 16 * 64 + k])) * widened(b[k * 16 + i % 16]);
                 worst = fmax(worst, fabs(sum - got[i]));
             }
             printf(worst < 1e-5 ? "right " : "off by %g ", worst);
         }
     }},
    // Captures and graphs.
    {"allocation during a capture",
     [] {
         during_a_capture("allocation", [] {
             Pointer at;
             return cuMemAlloc_v2(&at, 16);
         });
     }},
    {"allocation of host memory during a capture",
     [] {
         during_a_capture("allocation", [] {
             void* at;
             return cuMemHostAlloc(&at, 16, 0);
         });
     }},
    {"wait during a capture", [] { during_a_capture("wait", [] { return cuStreamSynchronize(stream); }); }},
    {"wait for all during a capture", [] { during_a_capture("wait", [] { return cuCtxSynchronize(); }); }},
    {"question during a capture", [] { during_a_capture("question", [] { return cuStreamQuery(stream); }); }},
    {"copy of pageable memory during a capture",
     [] {
         static float values[VALUES];
         static Pointer x = with_values();
         during_a_capture("up", [] { return cuMemcpyHtoDAsync_v2(x, values, BYTES, stream); });
         during_a_capture("down", [] { return cuMemcpyDtoHAsync_v2(values, x, BYTES, stream); });
         during_a_capture("now", [] { return cuMemcpyHtoD_v2(x, values, BYTES); });
     }},
    {"allocation in a captured stream",
     [] {
         OK(cuStreamBeginCapture_v2(stream, 1));
         Pointer at;
         OK(cuMemAllocAsync(&at, 16, stream));
     }},
    {"memory is freed in a captured stream",
     [] {
         const Pointer x = allocate();
         OK(cuStreamBeginCapture_v2(stream, 1));
         OK(cuMemFreeAsync(x, stream));
     }},
    {"stream is destroyed while it is captured",
     [] {
         OK(cuStreamBeginCapture_v2(stream, 1));
         OK(cuStreamDestroy_v2(stream));
     }},
    {"capture that goes well",
     [] {
         // A graph does its work when it is launched, with the values at that time.
         const Pointer x = allocate(), y = allocate();
         float* const values = pinned();
         for (int i = 0; i < VALUES; ++i) values[i] = 1;
         Handle free_of_it;
         OK(cuStreamCreate(&free_of_it, 1));
         const Handle both = graph([&] {
             OK(cuMemcpyHtoDAsync_v2(x, values, BYTES, stream));
             launch(function("sum_with_barriers"), x, y, {}, stream);
             OK(cuStreamSynchronize(free_of_it));  // the program may wait for another stream
         });
         printf("captured: %d, ", std::isnan(values_of(y)[0]) ? 0 : 1);
         OK(cuGraphLaunch(both, stream));
         OK(cuStreamSynchronize(stream));
         printf("launched: %g, ", values_of(y)[0]);
         values[0] = 2;
         OK(cuGraphLaunch(both, stream));
         OK(cuStreamSynchronize(stream));
         printf("again: %g", values_of(y)[0]);
     }},
    {"graph within a graph",
     [] {
         const Handle it = graph([] {});
         OK(cuStreamBeginCapture_v2(stream, 1));
         OK(cuGraphLaunch(it, stream));
     }},
    {"event in a captured stream",
     [] {
         OK(cuStreamBeginCapture_v2(stream, 1));
         OK(cuEventRecord(event(), stream));
     }},
    {"launch of a destroyed graph",
     [] {
         const Handle it = graph([] {});
         OK(cuGraphExecDestroy(it));
         OK(cuGraphLaunch(it, stream));
     }},
    {"graph with memory that was freed",
     [] {
         const Pointer x = with_values(), y = allocate();
         const Handle it = graph([&] { launch(function("sum_with_barriers"), x, y, {}, stream); });
         OK(cuMemFree_v2(x));
         OK(cuGraphLaunch(it, stream));
         OK(cuStreamSynchronize(stream));
     }},
    {"graph with pinned memory that was freed",
     [] {
         float* const values = pinned();
         const Pointer x = allocate();
         const Handle it = graph([&] { OK(cuMemcpyHtoDAsync_v2(x, values, BYTES, stream)); });
         OK(cuMemFreeHost(values));
         OK(cuGraphLaunch(it, stream));
         OK(cuStreamSynchronize(stream));
     }},
    // Streams and events.
    {"use of a destroyed stream",
     [] {
         OK(cuStreamDestroy_v2(stream));
         launch(function("sum_with_barriers"), with_values(), allocate(), {}, stream);
     }},
    {"not a stream", [] { OK(cuStreamSynchronize(&stream)); }},
    {"use of a destroyed event",
     [] {
         const Handle it = event();
         OK(cuEventDestroy_v2(it));
         OK(cuEventRecord(it, stream));
     }},
    {"context that was released",
     [] {
         OK(cuDevicePrimaryCtxRelease_v2(0));
         OK(cuCtxSetCurrent(context));
     }},
    {"time between events",
     [] {
         const Handle first = event(), second = event(), third = event();
         const Pointer x = with_values(), y = allocate();
         const Handle kernel = function("sum_with_barriers");
         OK(cuEventRecord(first, stream));
         for (const Handle next : {second, third}) {
             launch(kernel, x, y, {16}, stream);
             OK(cuEventRecord(next, stream));
         }
         float early, late, all;
         show("before the wait", cuEventElapsedTime(&early, first, second));
         OK(cuEventSynchronize(third));
         OK(cuEventElapsedTime(&early, first, second));
         OK(cuEventElapsedTime(&late, second, third));
         OK(cuEventElapsedTime(&all, first, third));
         const bool sum = fabsf(early + late - all) <= 1e-4f * all;
         printf("positive %d, the parts make the whole %d\n", early > 0 && late > 0, sum);
         show("without times", cuEventElapsedTime(&all, first, event(2)));
         show("not recorded", cuEventElapsedTime(&all, first, event()));
     }},
    // Deferred work.
    {"host memory is read before the wait",
     [] {
         float* const values = pinned();
         values[0] = -1;
         const Pointer x = with_values();
         OK(cuMemcpyDtoHAsync_v2(values, x, BYTES, stream));
         printf("%g, ", values[0]);
         show("stream", cuStreamQuery(stream));
         OK(cuStreamSynchronize(stream));
         printf("%g, ", values[0]);
         show("stream", cuStreamQuery(stream));
     }},
    {"pinned memory is changed before the wait",
     [] {
         float *const values = pinned(), pageable[VALUES] = {};
         values[0] = 0;
         const Pointer x = allocate(), y = allocate();
         OK(cuMemcpyHtoDAsync_v2(x, values, BYTES, stream));
         OK(cuMemcpyHtoDAsync_v2(y, pageable, BYTES, stream));
         values[0] = pageable[0] = 1;
         OK(cuStreamSynchronize(stream));
         printf("pinned %g, pageable %g", values_of(x)[0], values_of(y)[0]);
     }},
    {"pinned memory is freed before the wait",
     [] {
         float* const values = pinned();
         OK(cuMemcpyHtoDAsync_v2(allocate(), values, BYTES, stream));
         OK(cuMemFreeHost(values));
         OK(cuStreamSynchronize(stream));
     }},
    {"events order two streams",
     [] {
         Handle other;
         OK(cuStreamCreate(&other, 1));
         float* const values = pinned();
         const Pointer x = with_values(), y = allocate();
         OK(cuMemsetD32Async(y, 0, VALUES, other));
         for (const bool ordered : {false, true}) {
             launch(function("sum_with_barriers"), x, y, {}, stream);
             const Handle done = event(2);
             OK(cuEventRecord(done, stream));
             if (ordered) OK(cuStreamWaitEvent(other, done, 0));
             OK(cuMemcpyDtoHAsync_v2(values, y, BYTES, other));
             OK(cuStreamSynchronize(other));
             printf("%s an event: %g\n", ordered ? "with" : "without", values[0]);
         }
         show("the first stream", cuStreamQuery(stream));
     }},
    {"event is asked again and again",
     [] {
         launch(function("sum_with_barriers"), with_values(), allocate(), {}, stream);
         const Handle done = event(2);
         OK(cuEventRecord(done, stream));
         int times = 1;
         while (cuEventQuery(done) != 0) ++times;
         printf("done at question %d", times);
     }},
    // Products.
    {"product",
     [] {
         Product product;
         OK(product.choose());
         std::vector<std::vector<float>> results;
         for (int i = 0; i < product.count; ++i) {
             product.multiply(i);
             OK(cuStreamSynchronize(stream));
             results.push_back(values_of(product.out, int(product.m * product.n)));
             const double error = product.error(results[i]);
             printf(error < 1e-5 ? "right, " : "off by %g, ", error);
         }
         printf("%zu candidates, ", results.size());
         for (size_t i = 1; i < results.size(); ++i)
             printf(
                 "%s bits, ", memcmp(results[0].data(), results[i].data(), 4 * results[0].size()) ? "other" : "the same");
         product.prefer(0);
         OK(product.choose());
         printf("%d without a workspace", product.count);
     }},
    {"product: layouts that do not match",
     [] {
         Product product(504);
         printf("heuristic: %d\n", product.choose());
         fflush(stdout);
         product.multiply();
     }},
    {"product: a leading dimension that is too small",
     [] {
         Product product;
         OK(product.choose());
         OK(cublasLtMatrixLayoutCreate(&product.of_b, BF16, product.k, product.n, int64_t(product.k) - 8));
         product.multiply();
     }},
    {"product: a leading dimension that is not aligned",
     [] {
         Product product;
         OK(cublasLtMatrixLayoutCreate(&product.of_b, BF16, product.k, product.n, int64_t(product.k) + 1));
         OK(product.choose());
         product.multiply();
     }},
    {"product: an operand that is not aligned",
     [] {
         Product product;
         OK(product.choose());
         product.a += 16;
         product.multiply();
     }},
    {"product: an operand that is too short",
     [] {
         Product product;
         OK(product.choose());
         product.b = allocate(2 * product.k * (product.n - 1));
         product.multiply();
     }},
    {"product: an output that is too short",
     [] {
         Product product;
         OK(product.choose());
         product.out = allocate(4 * product.m * product.n - 4);
         product.multiply();
     }},
    {"product: the output overlaps an operand",
     [] {
         Product product;
         OK(product.choose());
         product.out = product.a;
         product.multiply();
     }},
    {"product: an algorithm for another product",
     [] {
         Product product;
         OK(product.choose());
         Handle columns, output;
         OK(cublasLtMatrixLayoutCreate(&columns, BF16, product.k, 32, int64_t(product.k)));
         OK(cublasLtMatrixLayoutCreate(&output, F32, 32, product.n, 32));
         product.of_a = columns, product.of_out = output;
         Found checked;
         printf(
             "check: %d\n", cublasLtMatmulAlgoCheck(
                                product.blas, product.description, columns, product.of_b, output, output,
                                &product.found[0].algorithm, &checked));
         fflush(stdout);
         product.multiply();
     }},
    {"product: a workspace that is too small",
     [] {
         Product product;
         OK(product.choose());
         product.workspace_bytes = 1024;
         product.multiply(1);
     }},
    {"product: a destroyed layout",
     [] {
         Product product;
         OK(product.choose());
         OK(cublasLtMatrixLayoutDestroy(product.of_b));
         product.multiply();
     }},
    {"product: a type that is not known", [] { printf("heuristic: %d", Product(512, 2).choose()); }},
    {"product: the handle of another device",
     [] {
         Product product;
         OK(product.choose());
         start(1);
         product.multiply();
     }},
    // The report.
    {"report",
     [] {
         const Pointer x = with_values(), y = allocate();
         const Handle kernel = function("sum_with_barriers");
         launch(kernel, x, y, {3}, stream);
         Product product;
         OK(product.choose());
         const Handle it = graph([&] {
             launch(kernel, x, y, {2}, stream);
             product.multiply();
             OK(cuMemcpyDtoDAsync_v2(y, x, BYTES, stream));
         });
         for (int i = 0; i < 2; ++i) OK(cuGraphLaunch(it, stream));
         OK(cuMemsetD32Async(y, 0, VALUES, stream));
         OK(cuStreamSynchronize(stream));
         values_of(y);
     }},
};

int main(int count, char** words) {
    for (const auto& [name, run] : CASES) {
        if (count != 2 || strcmp(name, words[1])) continue;
        start();
        run();
        return 0;
    }
    fprintf(stderr, "usage: objections CASE, one of\n");
    for (const auto& [name, _] : CASES) fprintf(stderr, "  %s\n", name);
    return 2;
}

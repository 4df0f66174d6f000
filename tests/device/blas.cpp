// libcublasLt on the CPU: products of bf16 matrices with f32 sums, column-major as in cuBLASLt.
//
// An algorithm is valid only for the product it was chosen for, with any number of columns; or with any depth, if the second
// operand is transposed and the sum is over its columns. Each product has three algorithms. They split the sum over k into one,
// two and four parts, so a different algorithm gives different bits.

#include <algorithm>
#include <cstring>
#include <memory>

#include "emu.h"

using namespace emu;

#define API extern "C" __attribute__((visibility("default"))) int
#define LOCK std::lock_guard<std::recursive_mutex> guard(lock)

namespace {

enum { SUCCESS = 0, INVALID_VALUE = 7, NOT_SUPPORTED = 15 };
enum { F32 = 0, BF16 = 14, COMPUTE_F32 = 68 };

struct Blas {
    int device = 0;
};
struct Layout {
    int type = 0;
    uint64_t rows = 0, columns = 0;
    int64_t leading = 0;

    size_t value_bytes() const { return type == F32 ? 4 : 2; }
    size_t bytes() const { return ((columns - 1) * size_t(leading) + rows) * value_bytes(); }
};
struct Product {
    int compute = 0, scale = 0;
    int transposed[2] = {0, 0};
};
struct Preference {
    uint64_t workspace = 0;
    uint32_t reductions = 7;
    uint32_t alignment[4] = {256, 256, 256, 256};
};
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

Handles<Blas> handles("cuBLASLt handle");
Handles<Layout> layouts("matrix layout");
Handles<Product> products("product");
Handles<Preference> preferences("preference");

// ---- The product ----

#if defined(__AVX512F__)
constexpr int WIDTH = 16;
#elif defined(__AVX__)
constexpr int WIDTH = 8;
#else
constexpr int WIDTH = 4;
#endif
typedef float Vector __attribute__((vector_size(4 * WIDTH)));
typedef float Unaligned __attribute__((vector_size(4 * WIDTH), aligned(4)));

// A tile of the output is computed from panels of PANEL rows and LINE columns.
constexpr int PANEL = 2 * WIDTH, LINE = WIDTH == 16 ? 12 : WIDTH == 8 ? 6 : 4;
// Block size of the depth, so that a panel of rows fits in the L1 cache.
constexpr int DEPTH = 256;
// Tile size of a task.
constexpr size_t ROWS = 4 * PANEL, COLUMNS = 8 * LINE;

float widen(uint16_t bits) {
    const uint32_t wide = uint32_t(bits) << 16;
    float it;
    memcpy(&it, &wide, 4);
    return it;
}
uint16_t narrow(float value) {
    if (value != value) return 0x7fff;
    uint32_t bits;
    memcpy(&bits, &value, 4);
    return uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

// Element (i, x) of an operand is at i + x · leading, or at x + i · leading. Packs `count` i from `first` and `depth` x from
// `start` as (depth, WIDE) in f32, padded with zeros.
template <int WIDE>
void pack(const uint16_t* from, size_t leading, bool along_x, size_t first, size_t count, size_t start, size_t depth,
          float* to) {
    if (count < WIDE) memset(to, 0, depth * WIDE * 4);
    if (along_x) {
        for (size_t i = 0; i < count; ++i) {
            const uint16_t* line = from + (first + i) * leading + start;
            for (size_t x = 0; x < depth; ++x) to[x * WIDE + i] = widen(line[x]);
        }
    } else if (count == WIDE) {
        for (size_t x = 0; x < depth; ++x) {
            const uint16_t* line = from + (start + x) * leading + first;
            for (int i = 0; i < WIDE; ++i) to[x * WIDE + i] = widen(line[i]);
        }
    } else {
        for (size_t x = 0; x < depth; ++x) {
            const uint16_t* line = from + (start + x) * leading + first;
            for (size_t i = 0; i < count; ++i) to[x * WIDE + i] = widen(line[i]);
        }
    }
}

// sums (LINE, PANEL) += a (depth, PANEL) · b (depth, LINE), in the order of the depth.
void multiply(const float* a, const float* b, size_t depth, float* sums, size_t stride) {
    Vector acc[LINE][2];
    for (int j = 0; j < LINE; ++j)
        for (int h = 0; h < 2; ++h) acc[j][h] = *reinterpret_cast<const Unaligned*>(sums + j * stride + h * WIDTH);
    for (size_t x = 0; x < depth; ++x) {
        const Vector a0 = *reinterpret_cast<const Unaligned*>(a + x * PANEL);
        const Vector a1 = *reinterpret_cast<const Unaligned*>(a + x * PANEL + WIDTH);
#pragma GCC unroll 16
        for (int j = 0; j < LINE; ++j) {
            acc[j][0] += a0 * b[x * LINE + j];
            acc[j][1] += a1 * b[x * LINE + j];
        }
    }
    for (int j = 0; j < LINE; ++j)
        for (int h = 0; h < 2; ++h) *reinterpret_cast<Unaligned*>(sums + j * stride + h * WIDTH) = acc[j][h];
}

struct Multiply {
    const uint16_t *a, *b;
    const void* added;
    void* out;
    Layout of_a, of_b, of_out;
    bool transposed[2];
    float alpha, beta;
    size_t m, n, k;
    int parts;  // of the sum over k
    std::string name;
    const void* workspace;
    size_t workspace_bytes;

    void tile(size_t row, size_t column) const {
        struct Scratch {
            float sums[COLUMNS * ROWS], part[COLUMNS * ROWS], a[ROWS * DEPTH], b[COLUMNS * DEPTH];
        };
        static thread_local std::unique_ptr<Scratch> mine(new Scratch);
        Scratch& s = *mine;
        const size_t rows = std::min(ROWS, m - row), columns = std::min(COLUMNS, n - column);
        const size_t panels = (rows + PANEL - 1) / PANEL, lines = (columns + LINE - 1) / LINE;
        const size_t used = lines * LINE * ROWS;
        for (int part = 0; part < parts; ++part) {
            const size_t from = k * part / parts, to = k * (part + 1) / parts;
            float* const sums = part ? s.part : s.sums;
            memset(sums, 0, used * 4);
            for (size_t start = from; start < to; start += DEPTH) {
                const size_t depth = std::min<size_t>(DEPTH, to - start);
                for (size_t l = 0; l < lines; ++l)
                    pack<LINE>(b, of_b.leading, !transposed[1], column + l * LINE, std::min<size_t>(LINE, columns - l * LINE),
                               start, depth, s.b + l * LINE * depth);
                for (size_t p = 0; p < panels; ++p) {
                    pack<PANEL>(a, of_a.leading, transposed[0], row + p * PANEL, std::min<size_t>(PANEL, rows - p * PANEL),
                                start, depth, s.a);
                    for (size_t l = 0; l < lines; ++l)
                        multiply(s.a, s.b + l * LINE * depth, depth, sums + l * LINE * ROWS + p * PANEL, ROWS);
                }
            }
            if (part)
                for (size_t i = 0; i < used; ++i) s.sums[i] += s.part[i];
        }
        for (size_t j = 0; j < columns; ++j) {
            const float* from = s.sums + j * ROWS;
            const size_t at = row + (column + j) * size_t(of_out.leading);
            if (of_out.type == F32) {
                const float* before = static_cast<const float*>(added) + at;
                float* to = static_cast<float*>(out) + at;
                for (size_t i = 0; i < rows; ++i)
                    to[i] = beta != 0 ? alpha * from[i] + beta * before[i] : alpha * from[i];
            } else {
                const uint16_t* before = static_cast<const uint16_t*>(added) + at;
                uint16_t* to = static_cast<uint16_t*>(out) + at;
                for (size_t i = 0; i < rows; ++i)
                    to[i] = narrow(beta != 0 ? alpha * from[i] + beta * widen(before[i]) : alpha * from[i]);
            }
        }
    }

    // The rows of one matrix may be interleaved with those of another: [x | x·A] is written to its last columns while its first
    // columns are read.
    void no_overlap(const char* what, const void* at, const Layout& layout) const {
        const uintptr_t from = uintptr_t(at), to = uintptr_t(out);
        if (from >= to + of_out.bytes() || to >= from + layout.bytes()) return;
        const size_t pitch = layout.leading * layout.value_bytes();
        if (pitch != of_out.leading * of_out.value_bytes()) objection("product: the output overlaps %s", what);
        // The offset of an output line within a line of the other matrix.
        const size_t behind = (to + pitch * ((from - to) / pitch + 1) - from) % pitch;
        const size_t place = to >= from ? (to - from) % pitch : behind;
        if (place < layout.rows * layout.value_bytes() || place + of_out.rows * of_out.value_bytes() > pitch)
            objection("product: the output overlaps %s", what);
    }

    void operator()() const {
        memory::check("product: first operand", a, of_a.bytes());
        memory::check("product: second operand", b, of_b.bytes());
        memory::check("product: output", out, of_out.bytes());
        if (beta != 0) memory::check("product: what is added", added, of_out.bytes());
        // Both are read while the output is written, in an order that the library chooses.
        no_overlap("the first operand", a, of_a);
        no_overlap("the second operand", b, of_b);
        if (beta != 0 && added != out) no_overlap("what is added", added, of_out);
        memory::check("product: workspace", workspace, workspace_bytes);
        const auto start = Clock::now();
        // Overwrite the workspace, because a library may do so.
        if (workspace_bytes) memset(const_cast<void*>(workspace), 0xff, std::min<size_t>(workspace_bytes, 4096));
        const size_t down = (m + ROWS - 1) / ROWS, across = (n + COLUMNS - 1) / COLUMNS;
        const double flops = 2.0 * double(m) * double(n) * double(k);
        parallel(down * across, flops / 3e10, [&](size_t i) { tile(i % down * ROWS, i / down * COLUMNS); });
        const double bytes = double(2 * m * k + 2 * k * n + of_out.value_bytes() * m * n * (beta != 0 ? 2 : 1));
        report::products[name].add(bytes, flops, since(start));
    }
};

// ---- Checks ----

float value_of(const void* scalar) {
    float it;
    memcpy(&it, scalar, 4);
    return it;
}

struct Extent {
    uint64_t m, n, k;
};

bool extent(const Product& product, const Layout& a, const Layout& b, const Layout& out, Extent& to) {
    to.m = product.transposed[0] ? a.columns : a.rows;
    to.k = product.transposed[0] ? a.rows : a.columns;
    to.n = product.transposed[1] ? b.rows : b.columns;
    const uint64_t depth = product.transposed[1] ? b.columns : b.rows;
    return to.m && to.n && to.k && to.k == depth && out.rows == to.m && out.columns == to.n &&
           a.leading >= int64_t(a.rows) && b.leading >= int64_t(b.rows) && out.leading >= int64_t(out.rows);
}

bool supported(const Product& product, const Layout& a, const Layout& b, const Layout& out) {
    return a.type == BF16 && b.type == BF16 && (out.type == BF16 || out.type == F32) && product.compute == COMPUTE_F32 &&
           product.scale == F32;
}

bool same(const Layout& a, const Layout& b) {
    return a.type == b.type && a.rows == b.rows && a.columns == b.columns && a.leading == b.leading;
}

// What an algorithm is valid for.
Algorithm bound(const Product& product, const Layout& a, const Layout& b, const Layout& out, const Extent& e, int id,
                const uint32_t* alignment) {
    uint64_t kinds = uint64_t(product.transposed[0]) | uint64_t(product.transposed[1]) << 1 | uint64_t(out.type) << 2;
    for (int i = 0; i < 4; ++i) kinds |= uint64_t(alignment[i]) << (16 + 12 * i);
    const bool over_rows = product.transposed[1];
    return {{e.m, over_rows ? e.n : 0, over_rows ? 0 : e.k, uint64_t(a.leading), uint64_t(b.leading),
             uint64_t(out.leading), kinds, uint64_t(id)}};
}
// The alignment promised for the addresses of the operands, the added matrix and the output.
struct Alignments {
    uint32_t of[4];

    explicit Alignments(const Algorithm& algorithm) {
        for (int i = 0; i < 4; ++i) of[i] = algorithm.data[6] >> (16 + 12 * i) & 0xfff;
    }
};

void check_aligned(const char* what, const void* at, const Layout& layout, size_t alignment) {
    if (!alignment || uintptr_t(at) % alignment) objection("product: %s at %p is not aligned to %zu bytes", what, at, alignment);
    if (size_t(layout.leading) * layout.value_bytes() % 16)
        objection("product: the leading dimension of %s, %ld, is not a multiple of 16 bytes", what, long(layout.leading));
}

}  // namespace

API cublasLtCreate(void** handle) {
    LOCK;
    if (current_device() < 0) return 1;
    *handle = handles.make({current_device()});
    return SUCCESS;
}
API cublasLtDestroy(void* handle) {
    LOCK;
    handles.destroy(handle);
    return SUCCESS;
}
extern "C" __attribute__((visibility("default"))) size_t cublasLtGetVersion() { return 130000; }
API cublasLtMatrixLayoutCreate(void** to, int type, uint64_t rows, uint64_t columns, int64_t leading) {
    LOCK;
    Layout it;
    it.type = type;
    it.rows = rows;
    it.columns = columns;
    it.leading = leading;
    *to = layouts.make(it);
    return SUCCESS;
}
API cublasLtMatrixLayoutDestroy(void* layout) {
    LOCK;
    layouts.destroy(layout);
    return SUCCESS;
}
API cublasLtMatmulDescCreate(void** to, int compute, int scale) {
    LOCK;
    Product it;
    it.compute = compute;
    it.scale = scale;
    *to = products.make(it);
    return SUCCESS;
}
API cublasLtMatmulDescDestroy(void* product) {
    LOCK;
    products.destroy(product);
    return SUCCESS;
}
API cublasLtMatmulDescSetAttribute(void* product, int attribute, const void* value, size_t bytes) {
    LOCK;
    if (bytes != 4) return INVALID_VALUE;
    if (attribute != 3 && attribute != 4) objection("product: attribute %d is not emulated", attribute);
    memcpy(&products.get(product).transposed[attribute - 3], value, 4);
    return SUCCESS;
}
API cublasLtMatmulPreferenceCreate(void** to) {
    LOCK;
    *to = preferences.make({});
    return SUCCESS;
}
API cublasLtMatmulPreferenceDestroy(void* preference) {
    LOCK;
    preferences.destroy(preference);
    return SUCCESS;
}
API cublasLtMatmulPreferenceSetAttribute(void* preference, int attribute, const void* value, size_t bytes) {
    LOCK;
    Preference& it = preferences.get(preference);
    if (attribute == 1 && bytes == 8)
        memcpy(&it.workspace, value, 8);
    else if (attribute == 3 && bytes == 4)
        memcpy(&it.reductions, value, 4);
    else if (attribute >= 5 && attribute <= 8 && bytes == 4)
        memcpy(&it.alignment[attribute - 5], value, 4);
    else
        objection("product: preference %d of %zu bytes is not emulated", attribute, bytes);
    return SUCCESS;
}

constexpr int ALGORITHMS = 3;
constexpr int PARTS[ALGORITHMS] = {1, 2, 4};

API cublasLtMatmulAlgoGetHeuristic(
    void* handle, void* product, void* a, void* b, void* c, void* d, void* preference, int wanted, Found* results,
    int* count) {
    LOCK;
    handles.get(handle);
    const Product& it = products.get(product);
    const Layout &first = layouts.get(a), &second = layouts.get(b), &out = layouts.get(d);
    const Preference& limits = preferences.get(preference);
    *count = 0;
    Extent e;
    if (wanted < 1 || !extent(it, first, second, out, e) || !same(layouts.get(c), out)) return INVALID_VALUE;
    if (!supported(it, first, second, out)) return NOT_SUPPORTED;
    for (int id = 0; id < ALGORITHMS && *count < wanted; ++id) {
        // A split sum needs space for its parts, in f32.
        const size_t workspace = PARTS[id] == 1 ? 0 : PARTS[id] * e.m * e.n * 4;
        if (workspace > limits.workspace || (id && e.k < 64)) continue;
        Found& found = results[(*count)++];
        memset(&found, 0, sizeof found);
        found.algorithm = bound(it, first, second, out, e, id, limits.alignment);
        found.workspace = workspace;
        found.waves = 1;
    }
    return *count ? SUCCESS : NOT_SUPPORTED;
}
API cublasLtMatmulAlgoCheck(
    void* handle, void* product, void* a, void* b, void* c, void* d, const Algorithm* algorithm, Found* result) {
    LOCK;
    handles.get(handle);
    const Product& it = products.get(product);
    const Layout &first = layouts.get(a), &second = layouts.get(b), &out = layouts.get(d);
    Extent e;
    if (!extent(it, first, second, out, e) || !same(layouts.get(c), out)) return INVALID_VALUE;
    const uint64_t id = algorithm->data[7];
    if (id >= ALGORITHMS || (id && e.k < 64)) return NOT_SUPPORTED;
    const Algorithm right = bound(it, first, second, out, e, int(id), Alignments(*algorithm).of);
    if (memcmp(&right, algorithm, sizeof right)) return NOT_SUPPORTED;
    memset(result, 0, sizeof *result);
    result->algorithm = *algorithm;
    result->workspace = PARTS[id] == 1 ? 0 : PARTS[id] * e.m * e.n * 4;
    result->waves = 1;
    return SUCCESS;
}

API cublasLtMatmul(
    void* handle, void* product, const void* alpha, const void* a, void* of_a, const void* b, void* of_b,
    const void* beta, const void* c, void* of_c, void* d, void* of_d, const Algorithm* algorithm, void* workspace,
    size_t workspace_bytes, void* stream) {
    LOCK;
    if (handles.get(handle).device != current_device()) objection("product: the cuBLASLt handle is of another device");
    const Product& it = products.get(product);
    const Layout &first = layouts.get(of_a), &second = layouts.get(of_b), &out = layouts.get(of_d);
    Extent e;
    if (!extent(it, first, second, out, e)) objection("product: the layouts do not match");
    if (!same(layouts.get(of_c), out)) objection("product: a C of another layout than D is not emulated");
    if (!supported(it, first, second, out)) objection("product: these types are not emulated");
    if (!algorithm) objection("product: no algorithm is given");
    const uint64_t id = algorithm->data[7];
    const Alignments promised(*algorithm);
    const Algorithm right = bound(it, first, second, out, e, int(id), promised.of);
    if (id >= ALGORITHMS || memcmp(&right, algorithm, sizeof right))
        objection("product: the algorithm was chosen for another product");
    if (PARTS[id] > 1 && workspace_bytes < PARTS[id] * e.m * e.n * 4)
        objection("product: a workspace of %zu bytes is too small for the algorithm", workspace_bytes);
    // 256 bytes, unless the heuristic was given another value.
    check_aligned("first operand", a, first, promised.of[0]);
    check_aligned("second operand", b, second, promised.of[1]);
    if (value_of(beta) != 0) check_aligned("what is added", c, out, promised.of[2]);
    check_aligned("output", d, out, promised.of[3]);
    char name[160];
    snprintf(
        name, sizeof name, "%zux%zux%zu %c%c %s%s", size_t(e.m), size_t(e.n), size_t(e.k), it.transposed[0] ? 't' : 'n',
        it.transposed[1] ? 't' : 'n', out.type == F32 ? "f32" : "bf16", value_of(beta) != 0 ? " +=" : "");
    return enqueue(
        stream, Multiply{
                    static_cast<const uint16_t*>(a), static_cast<const uint16_t*>(b), c, d, first, second, out,
                    {it.transposed[0] != 0, it.transposed[1] != 0}, value_of(alpha), value_of(beta), e.m, e.n, e.k,
                    PARTS[id], name, workspace, workspace_bytes});
}

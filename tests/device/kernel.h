// Information about each kernel that a library provides to the driver: name, parameters and how to call it.
#pragma once

#include <cstddef>
#include <cstring>
#include <new>
#include <tuple>
#include <type_traits>
#include <utility>

namespace emu {

struct Parameter {
    unsigned size, align;
    bool pointer, constant;
    unsigned pointee_align;  // of a pointer
};

struct Kernel {
    const char* name;
    unsigned most_threads;  // __launch_bounds__
    unsigned parameter_count;
    const Parameter* parameters;
    size_t packed_bytes;
    // Reads the parameters like the driver does.
    void (*pack)(void** parameters, void* packed);
    // Runs the kernel in one thread of the grid.
    void (*body)(void* packed);
};

struct Library {
    const char* file;
    const Kernel* kernels;
    size_t count;
    const void* (*marker)();
};

template <class T>
constexpr Parameter parameter() {
    if constexpr (std::is_pointer_v<T>) {
        using Pointee = std::remove_pointer_t<T>;
        return {sizeof(T), alignof(T), true, std::is_const_v<Pointee>, alignof(Pointee)};
    } else {
        return {sizeof(T), alignof(T), false, true, 1};
    }
}

template <class T>
T value_at(const void* from) {
    T value;
    memcpy(&value, from, sizeof value);
    return value;
}

constexpr unsigned bound(unsigned threads = 1024, unsigned = 0) { return threads; }

template <auto FUNCTION>
struct Caller;
template <class... P, void (*FUNCTION)(P...)>
struct Caller<FUNCTION> {
    static_assert((std::is_trivially_copyable_v<P> && ...), "parameters of a kernel are plain values");
    using Values = std::tuple<P...>;
    static constexpr Parameter PARAMETERS[] = {parameter<P>()...};

    template <size_t... I>
    static void pack_all(void** from, void* to, std::index_sequence<I...>) {
        new (to) Values(value_at<P>(from[I])...);
    }
    static void pack(void** from, void* to) { pack_all(from, to, std::index_sequence_for<P...>{}); }
    static void body(void* packed) { std::apply(FUNCTION, *static_cast<Values*>(packed)); }
    static constexpr Kernel kernel(const char* name, unsigned most_threads) {
        return {name, most_threads, sizeof...(P), PARAMETERS, sizeof(Values), pack, body};
    }
};

}  // namespace emu

// The table of a library, after its kernels' source file: `{KERNEL(name, bounds...), ...}`.
#define KERNEL(NAME, ...) emu::Caller<NAME>::kernel(#NAME, emu::bound(__VA_ARGS__))
#define KERNEL_LIBRARY(FILE, ...)                                                                      \
    extern "C" __attribute__((visibility("default"))) const emu::Library* emulated_kernels() {         \
        static constexpr emu::Kernel KERNELS[] = {__VA_ARGS__};                                        \
        static constexpr auto MARKER = []() -> const void* {                                           \
            static thread_local volatile char marker;                                                  \
            marker = 1;                                                                                \
            return const_cast<const char*>(&marker);                                                   \
        };                                                                                             \
        static const emu::Library LIBRARY = {FILE, KERNELS, sizeof KERNELS / sizeof *KERNELS, MARKER}; \
        return &LIBRARY;                                                                               \
    }

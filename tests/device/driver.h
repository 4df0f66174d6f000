// The program around a kernel: reads one launch from its input, runs it in all three orders of its threads, and writes
// what the buffers hold. `KERNELS(a, b)` makes it; see tests/it/kernels/shim.rs for the other side.
#pragma once

#include <csignal>
#include <string>
#include <tuple>
#include <type_traits>

#include "device.cpp"

namespace shim {

enum Kind : uint32_t { null, buffer, scalar };

struct Argument {
    uint32_t kind;
    std::vector<unsigned char> bytes;
    Region memory;
    bool written = false;
};

struct Request {
    std::string kernel;
    dim3 grid, block;
    uint32_t shared_bytes;
    std::vector<Argument> arguments;
};
inline Request request;

inline void read(void* to, size_t bytes) {
    if (bytes && fread(to, bytes, 1, stdin) != 1) fail("the request is too short");
}
template <class T>
T read() {
    T value;
    read(&value, sizeof value);
    return value;
}

inline void read_request() {
    request.kernel.resize(read<uint32_t>());
    read(&request.kernel[0], request.kernel.size());
    device.kernel = request.kernel.c_str();
    request.grid = read<dim3>();
    request.block = read<dim3>();
    request.shared_bytes = read<uint32_t>();
    request.arguments.resize(read<uint32_t>());
    for (Argument& argument : request.arguments) {
        argument.kind = read<uint32_t>();
        argument.bytes.resize(read<uint64_t>());
        read(argument.bytes.data(), argument.bytes.size());
        if (argument.kind == buffer) argument.memory = guarded(argument.bytes.size());
    }
}

// The value of one parameter of a kernel.
template <class T>
T take(size_t index) {
    Argument& argument = request.arguments[index];
    if constexpr (std::is_pointer_v<T>) {
        if (argument.kind == null) return nullptr;
        if (argument.kind != buffer) fail("argument %zu is no buffer, and the kernel takes a pointer", index);
        argument.written |= !std::is_const_v<std::remove_pointer_t<T>>;
        return reinterpret_cast<T>(argument.memory.start);
    } else {
        if (argument.kind != scalar || argument.bytes.size() != sizeof(T))
            fail("argument %zu is not a value of %zu bytes", index, sizeof(T));
        T value;
        memcpy(&value, argument.bytes.data(), sizeof value);
        return value;
    }
}

template <class... Parameters>
struct Call {
    void (*kernel)(Parameters...);
    std::tuple<Parameters...> values;
};

template <class... Parameters, size_t... I>
void run(void (*kernel)(Parameters...), Order order, std::index_sequence<I...>) {
    if (request.arguments.size() != sizeof...(I))
        fail("the kernel takes %zu arguments, not %zu", sizeof...(I), request.arguments.size());
    for (Argument& argument : request.arguments)
        if (argument.kind == buffer) memcpy(argument.memory.start, argument.bytes.data(), argument.bytes.size());
    Call<Parameters...> call{kernel, {take<Parameters>(I)...}};
    auto body = [](void* call) {
        auto* it = static_cast<Call<Parameters...>*>(call);
        std::apply(it->kernel, it->values);
    };
    const dim3 grid = request.grid;
    const std::vector<unsigned> blocks = shuffled_blocks(size_t(grid.x) * grid.y * grid.z);
    const auto marker = []() -> const void* {
        static thread_local char it;
        return &it;
    };
    std::atomic<size_t> next{0};
    run_blocks(
        {request.kernel.c_str(), grid, request.block, request.shared_bytes, body, &call, order, marker,
         order == Order::shuffled ? blocks.data() : nullptr},
        next, 1);
    device.kernel = request.kernel.c_str();
}

inline void check(size_t index, const Argument& argument) {
    if (!guards_are_whole(argument.memory)) fail("a write outside of argument %zu", index);
    if (!argument.written && memcmp(argument.memory.start, argument.bytes.data(), argument.bytes.size()))
        fail("argument %zu is const, and the kernel has changed it", index);
}

// Runs the kernel if it is the one asked for.
template <class... Parameters>
bool answer(const char* name, void (*kernel)(Parameters...)) {
    if (request.kernel != name) return false;
    std::vector<std::vector<unsigned char>> first(request.arguments.size());
    const char* names[] = {"forward", "reverse", "shuffled"};
    for (Order order : {Order::forward, Order::reverse, Order::shuffled}) {
        run(kernel, order, std::index_sequence_for<Parameters...>{});
        for (size_t i = 0; i < request.arguments.size(); ++i) {
            Argument& argument = request.arguments[i];
            if (argument.kind != buffer) continue;
            check(i, argument);
            const Region memory = argument.memory;
            if (order == Order::forward) {
                first[i].assign(memory.start, memory.start + memory.bytes);
            } else {
                for (size_t at = 0; at < memory.bytes; ++at)
                    if (first[i][at] != memory.start[at])
                        fail(
                            "argument %zu differs from byte %zu on with the threads in %s order: a barrier is missing",
                            i, at, names[int(order)]);
            }
        }
    }
    for (const auto& bytes : first) fwrite(bytes.data(), 1, bytes.size(), stdout);
    return true;
}

// An access to a forbidden page, or one that is not aligned.
inline void on_fault(int, siginfo_t* info, void*) {
    const unsigned char* address = static_cast<unsigned char*>(info->si_addr);
    for (size_t i = 0; i < request.arguments.size(); ++i) {
        const Region memory = request.arguments[i].memory;
        if (request.arguments[i].kind != buffer || address < first_page(memory) - PAGE) continue;
        if (address < memory.start + pages(memory.bytes) + PAGE)
            fail("an access to byte %td of argument %zu, which has %zu", address - memory.start, i, memory.bytes);
    }
    if (device.dynamic_shared.start && address >= first_page(device.dynamic_shared) - PAGE &&
        address < device.dynamic_shared.start + pages(device.dynamic_shared.bytes) + PAGE)
        fail(
            "an access to byte %td of the dynamic shared memory, which has %zu", address - device.dynamic_shared.start,
            device.dynamic_shared.bytes);
    fail(
        "an access to address %p, which is nobody's, or an address that is not aligned",
        static_cast<const void*>(address));
}

inline void catch_faults() {
    static char stack[64 << 10];
    stack_t alternate{};
    alternate.ss_sp = stack;
    alternate.ss_size = sizeof stack;
    sigaltstack(&alternate, nullptr);
    struct sigaction action{};
    action.sa_sigaction = on_fault;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigaction(SIGSEGV, &action, nullptr);
    sigaction(SIGBUS, &action, nullptr);
}

template <class... Kernels>
int serve(int seconds, const char* names, Kernels... kernels) {
    alarm(seconds);  // a kernel that never ends
    catch_faults();
    read_request();
    // `names` are the kernels' names as the macro was given them, with commas between.
    std::vector<std::string> each;
    for (const char* at = names; *at;) {
        const size_t length = strcspn(at, ", ");
        if (length) each.emplace_back(at, length);
        at += length + (at[length] != 0);
    }
    size_t next = 0;
    const bool known = (answer(each[next++].c_str(), kernels) || ...);
    if (!known) fail("there is no such kernel among: %s", names);
    return 0;
}

}  // namespace shim

#define KERNELS(...) \
    int main(int count, char** words) { return shim::serve(count > 1 ? atoi(words[1]) : 0, #__VA_ARGS__, __VA_ARGS__); }

// The threads that run the blocks of a launch and the tiles of a product. Results do not depend on their number.

#include <condition_variable>
#include <csignal>
#include <thread>

#include "emu.h"
#include "run.h"

namespace shim {
__thread Device device = {};
}

namespace emu {

namespace {

// Never destroyed, because its threads are still waiting when the process ends.
struct Pool {
    std::mutex lock;
    std::condition_variable begin, end;
    const std::function<void()>* task = nullptr;
    size_t turn = 0, busy = 0, joined = 0;

    explicit Pool(size_t threads) {
        for (size_t i = 0; i < threads; ++i) std::thread([this] { serve(); }).detach();
    }
    void serve() {
        catch_faults();
        size_t seen = 0;
        std::unique_lock guard(lock);
        while (true) {
            begin.wait(guard, [&] { return task && turn != seen; });
            seen = turn;
            ++busy;
            ++joined;
            const std::function<void()>& mine = *task;
            guard.unlock();
            mine();
            guard.lock();
            if (--busy == 0) end.notify_one();
        }
    }
    // Returns when no thread works on it any more, with the number of threads that did. Threads that have not woken up by the time
    // the work is done are not waited for.
    size_t run(const std::function<void()>& it) {
        {
            std::lock_guard guard(lock);
            task = &it;
            joined = 1;
            ++turn;
        }
        begin.notify_all();
        it();
        std::unique_lock guard(lock);
        task = nullptr;
        end.wait(guard, [&] { return busy == 0; });
        return joined;
    }
};

// The time to wake the other threads, in seconds.
constexpr double WORTH_IT = 60e-6;

size_t threads() {
    static const size_t it = [] {
        const long cores = long(std::thread::hardware_concurrency());
        return size_t(std::max(1L, setting("THREADS", std::max(1L, cores))));
    }();
    return it;
}

}  // namespace

size_t on_all(double seconds, const std::function<void()>& task) {
    if (threads() == 1 || seconds < WORTH_IT) return task(), 1;
    static Pool* pool = new Pool(threads() - 1);
    return pool->run(task);
}

void parallel(size_t count, double seconds, const std::function<void(size_t)>& task) {
    std::atomic<size_t> next{0};
    on_all(count > 1 ? seconds : 0, [&] {
        for (size_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < count;) task(i);
    });
}

// ---- Faults ----

static void on_fault(int signal_number, siginfo_t* info, void*) {
    const uintptr_t at = reinterpret_cast<uintptr_t>(info->si_addr);
    const shim::Device& device = shim::device;
    if (device.kernel && device.thread) {
        if (signal_number == SIGILL || signal_number == SIGTRAP)
            shim::fail("an index out of bounds, an address that is not aligned, or an overflow of a signed integer");
        const std::string place = memory::describe(at);
        if (!place.empty()) shim::fail("an access to %s", place.c_str());
        const shim::Region shared = device.dynamic_shared;
        if (shared.start && at + 2 * shim::PAGE > uintptr_t(shared.start) &&
            at < uintptr_t(shared.start) + shim::pages(shared.bytes) + 2 * shim::PAGE)
            shim::fail(
                "an access to byte %td of the dynamic shared memory, which has %zu", ptrdiff_t(at - uintptr_t(shared.start)),
                shared.bytes);
        shim::fail("an access to address %p, which is in no allocation, or to one that is not aligned", info->si_addr);
    }
    const std::string place = memory::describe(at);
    if (!place.empty()) objection("the host touches %s on the device", place.c_str());
    signal(signal_number, SIG_DFL);
    raise(signal_number);
}

void catch_faults() {
    static thread_local bool done;
    if (done) return;
    done = true;
    stack_t alternate{};
    alternate.ss_size = 64 << 10;
    alternate.ss_sp = new char[alternate.ss_size];
    sigaltstack(&alternate, nullptr);
    struct sigaction action {};
    action.sa_sigaction = on_fault;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    for (int number : {SIGSEGV, SIGBUS, SIGILL, SIGTRAP}) sigaction(number, &action, nullptr);
}

}  // namespace emu

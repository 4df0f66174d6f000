// What the device did: a short summary on stderr (RFT_EMU_SUMMARY=1), and a JSON object in a file (RFT_EMU_REPORT=FILE).

#include <algorithm>
#include <cmath>
#include <sys/resource.h>
#include <unistd.h>

#include "emu.h"

namespace emu::report {

Totals totals;
Count copies_up, copies_down, copies_across, fills;
std::map<std::string, Count> kernels, products;
bool in_graph = false;

void Count::add(double more_bytes, double more_flops, double more_seconds, size_t more_blocks) {
    ++times;
    from_graphs += in_graph;
    bytes += more_bytes;
    flops += more_flops;
    seconds += more_seconds;
    blocks += more_blocks;
}

static Count sum(const std::map<std::string, Count>& counts) {
    Count all;
    for (const auto& [_, count] : counts) {
        all.times += count.times;
        all.from_graphs += count.from_graphs;
        all.seconds += count.seconds;
    }
    return all;
}

static void lines(const char* title, const std::map<std::string, Count>& counts) {
    std::vector<std::pair<double, std::string>> order;
    for (const auto& [name, count] : counts) order.push_back({count.seconds, name});
    std::sort(order.rbegin(), order.rend());
    if (!order.empty()) fprintf(stderr, "  %s\n", title);
    for (const auto& [seconds, name] : order)
        fprintf(stderr, "  %9.3f s %9zu x %s\n", seconds, counts.at(name).times, name.c_str());
}

static void summary() {
    const Totals& t = totals;
    const Count launches = sum(kernels), multiplied = sum(products);
    const auto mib = [](double bytes) { return bytes / (1 << 20); };
    fprintf(
        stderr,
        "emulated device report: %s; %zu launches of kernels and %zu products, %zu of both from %zu launches of graphs (%zu "
        "instantiated); %zu waits; copies up %zu (%.1f MiB), down %zu (%.1f MiB), across %zu (%.1f MiB); %zu "
        "allocations, peak %.1f MiB\n",
        profile().name, launches.times, multiplied.times, launches.from_graphs + multiplied.from_graphs,
        t.graph_launches, t.instantiated, t.waits, copies_up.times, mib(copies_up.bytes), copies_down.times,
        mib(copies_down.bytes), copies_across.times, mib(copies_across.bytes), memory::allocations(),
        mib(double(memory::peak())));
    lines("kernels", kernels);
    lines("products", {{"all products", multiplied}});
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    const auto seconds = [](timeval t) { return double(t.tv_sec) + 1e-6 * double(t.tv_usec); };
    fprintf(
        stderr, "  CPU %.2f s user, %.2f s system, %.0f MiB resident at most\n", seconds(usage.ru_utime),
        seconds(usage.ru_stime), double(usage.ru_maxrss) / 1024);
}

// README.md describes the objects.
enum Kind { KERNELS, PRODUCTS, COPIES };

static void object(FILE* file, Kind kind, const std::map<std::string, Count>& counts) {
    static const char* const NAMES[] = {"kernels", "products", "copies"};
    fprintf(file, ",\n  \"%s\": {", NAMES[kind]);
    const char* separator = "\n    ";
    for (const auto& [key, count] : counts) {
        fprintf(
            file, "%s\"%s\": {\"times\": %zu, \"from_graphs\": %zu", separator, key.c_str(), count.times,
            count.from_graphs);
        if (kind == KERNELS) fprintf(file, ", \"blocks\": %zu", count.blocks);
        if (kind != KERNELS) fprintf(file, ", \"bytes\": %.0f", count.bytes);
        if (kind == PRODUCTS) fprintf(file, ", \"flops\": %.0f", count.flops);
        if (kind != COPIES) fprintf(file, ", \"seconds\": %.6f", count.seconds);
        fputs("}", file);
        separator = ",\n    ";
    }
    fprintf(file, "\n  }");
}

static void json(std::string path) {
    const size_t id = path.find("%p");
    if (id != std::string::npos) path.replace(id, 2, std::to_string(getpid()));
    FILE* file = fopen(path.c_str(), "w");
    if (!file) objection("cannot write the report to %s", path.c_str());
    const Totals& t = totals;
    fprintf(
        file,
        "{\n  \"gpu\": \"%s\",\n  \"waits\": %zu,\n  \"graphs\": %zu,\n  \"graph_nodes\": %zu,\n"
        "  \"graphs_instantiated\": %zu,\n  \"graph_launches\": %zu,\n  \"allocations\": %zu,\n"
        "  \"allocations_left\": %zu,\n  \"peak_bytes\": %zu",
        profile().name, t.waits, t.graphs, t.nodes, t.instantiated, t.graph_launches, memory::allocations(),
        memory::left(), memory::peak());
    object(file, KERNELS, kernels);
    object(file, PRODUCTS, products);
    object(file, COPIES, {{"up", copies_up}, {"down", copies_down}, {"across", copies_across}, {"fills", fills}});
    fprintf(file, "\n}\n");
    fclose(file);
}

void write() {
    std::lock_guard guard(lock);
    if (setting("SUMMARY", 0)) summary();
    if (const char* path = text_setting("REPORT")) json(path);
    // Check the allocations that were never freed.
    memory::check_all();
}

}  // namespace emu::report

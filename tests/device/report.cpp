// What the device did: a few lines on stderr (RFT_EMU_SUMMARY=1), a JSON object in a file (RFT_EMU_REPORT=FILE).

#include <algorithm>
#include <cmath>
#include <sys/resource.h>

#include "emu.h"

namespace emu::report {

Totals totals;
std::map<std::string, Count> kernels, products;

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
    size_t multiplied = 0;
    for (const auto& [_, count] : products) multiplied += count.times;
    fprintf(
        stderr,
        "emulated device report: %s; %zu launches and %zu products, %zu of both from %zu launches of graphs (%zu "
        "instantiated); %zu waits; copies up %zu (%.1f MiB), down %zu (%.1f MiB), across %zu (%.1f MiB); %zu "
        "allocations, peak %.1f MiB\n",
        profile().name, t.launches, multiplied, t.from_graphs, t.graph_launches, t.instantiated, t.waits, t.copies_up,
        double(t.bytes_up) / (1 << 20), t.copies_down, double(t.bytes_down) / (1 << 20), t.copies_across,
        double(t.bytes_across) / (1 << 20), memory::allocations(), double(memory::peak()) / (1 << 20));
    lines("kernels", kernels);
    std::map<std::string, Count> all;
    for (const auto& [_, count] : products) {
        all["all products"].times += count.times;
        all["all products"].seconds += count.seconds;
    }
    lines("products", all);
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    const auto seconds = [](timeval t) { return double(t.tv_sec) + 1e-6 * double(t.tv_usec); };
    fprintf(
        stderr, "  CPU %.2f s user, %.2f s system, %.0f MiB resident at most\n", seconds(usage.ru_utime),
        seconds(usage.ru_stime), double(usage.ru_maxrss) / 1024);
}

static void object(FILE* file, const char* name, const std::map<std::string, Count>& counts) {
    fprintf(file, ",\n  \"%s\": {", name);
    const char* separator = "\n    ";
    for (const auto& [key, count] : counts) {
        fprintf(
            file, "%s\"%s\": {\"times\": %zu, \"blocks\": %zu, \"bytes\": %.0f, \"flops\": %.0f, \"seconds\": %.6f}",
            separator, key.c_str(), count.times, count.blocks, count.bytes, count.flops, count.seconds);
        separator = ",\n    ";
    }
    fprintf(file, "\n  }");
}

static void json(const char* path) {
    FILE* file = fopen(path, "w");
    if (!file) objection("cannot write the report to %s", path);
    const Totals& t = totals;
    fprintf(
        file,
        "{\n  \"gpu\": \"%s\",\n  \"launches\": %zu,\n  \"from_graphs\": %zu,\n  \"graph_launches\": %zu,\n"
        "  \"graphs\": %zu,\n  \"graphs_instantiated\": %zu,\n  \"graph_nodes\": %zu,\n  \"waits\": %zu,\n"
        "  \"copies_up\": %zu,\n  \"bytes_up\": %zu,\n  \"copies_down\": %zu,\n  \"bytes_down\": %zu,\n"
        "  \"copies_across\": %zu,\n  \"bytes_across\": %zu,\n  \"fills\": %zu,\n  \"bytes_filled\": %zu,\n"
        "  \"allocations\": %zu,\n  \"allocations_left\": %zu,\n  \"peak_bytes\": %zu",
        profile().name, t.launches, t.from_graphs, t.graph_launches, t.graphs, t.instantiated, t.nodes, t.waits,
        t.copies_up, t.bytes_up, t.copies_down, t.bytes_down, t.copies_across, t.bytes_across, t.fills, t.bytes_filled,
        memory::allocations(), memory::left(), memory::peak());
    object(file, "kernels", kernels);
    object(file, "products", products);
    fprintf(file, "\n}\n");
    fclose(file);
}

void write() {
    std::lock_guard guard(lock);
    if (setting("SUMMARY", 0)) summary();
    if (const char* path = text_setting("REPORT")) json(path);
}

}  // namespace emu::report

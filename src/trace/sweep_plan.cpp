#include "trace/sweep_plan.hpp"

#include <c10/util/Exception.h>

#include <map>
#include <set>
#include <string>
#include <tuple>
#include <utility>

#include "rometrace/error.hpp"

namespace rometrace {
namespace {

// In bytes or KiB, rounded up; either reads back as a --memory that is enough.
std::string size_text(std::int64_t bytes) {
  constexpr std::int64_t kKibi = 1024;
  return bytes < kKibi ? std::to_string(bytes) + "B" : std::to_string((bytes + kKibi - 1) / kKibi) + "K";
}

}  // namespace

std::vector<PatchCells> patches_of(const SweepShape& shape, const TraceOptions& options) {
  std::map<std::tuple<std::int64_t, std::int64_t, Site, std::int64_t>, PatchCells> patches;
  for (std::size_t grid = 0; grid < options.kinds.size(); ++grid) {
    for (auto t = shape.b; t < shape.T; ++t) {
      for (std::int64_t layer = 0; layer < shape.L; ++layer) {
        const auto patch = patch_of(options.kinds[grid], t, layer, options.window, shape.L);
        auto& entry = patches[{patch.layers.begin, t, patch.site, patch.layers.end}];
        entry.patch = patch;
        entry.cells.push_back({grid, static_cast<std::size_t>(t * shape.L + layer)});
      }
    }
  }
  std::vector<PatchCells> list;
  list.reserve(patches.size());
  for (auto& [key, entry] : patches) list.push_back(std::move(entry));
  return list;
}

bool Segment::restored_at(Site site, std::int64_t layer) const {
  return patch != nullptr && patch->site == site && patch->position == first && patch->layers.begin < layer &&
         layer < patch->layers.end;
}

SweepShape::SweepShape(const TracePrompt& prompt, const TraceOptions& options, std::int64_t layers, std::int64_t facts)
    : J(facts),
      N(options.samples),
      T(static_cast<std::int64_t>(prompt.token_ids.size())),
      L(layers),
      b(static_cast<std::int64_t>(prompt.subject_range.begin)) {
  TORCH_INTERNAL_ASSERT(J >= 1 && N >= 1 && 0 <= b && b < T, "a trace needs a draw and a subject within the prompt");
}

Segment SweepShape::corrupted_run() const {
  return {nullptr, b, T - b, /*clean_prefix=*/true, 0};
}

Segment SweepShape::segment_of(const Patch& patch) const {
  // No position up to the subject's first token has read noise: its state, once restored, stays the clean run's. So it
  // needs no row, and those after it see the clean run's keys.
  if (patch.site == Site::kState && patch.position == b) return {&patch, b + 1, T - b - 1, /*clean_prefix=*/true, 0};
  return {&patch, patch.position, T - patch.position, /*clean_prefix=*/false, 0};
}

Outcome SweepShape::outcome_of(const Patch& patch) const {
  const bool last_layer = patch.layers.begin == L - 1, last_position = patch.position == T - 1;
  if (last_layer && !last_position) return Outcome::kCorrupted;  // only the last position is read from there on
  if (patch.site == Site::kState && last_position && (last_layer || patch.position == b)) return Outcome::kClean;
  return Outcome::kToBeRun;
}

SweepPlan::SweepPlan(const SweepShape& shape, std::vector<const Patch*> patches_to_run)
    : patches(std::move(patches_to_run)), admissions(static_cast<std::size_t>(shape.L)) {
  std::map<std::tuple<std::int64_t, Site, std::int64_t>, std::size_t> longest;
  const auto start = [](const Patch& patch) { return std::tuple(patch.position, patch.site, patch.layers.begin); };
  for (std::size_t i = 0; i < patches.size(); ++i) {
    const auto [entry, is_new] = longest.emplace(start(*patches[i]), i);
    if (!is_new && patches[i]->layers.end > patches[entry->second]->layers.end) entry->second = i;
  }
  rows = shape.rows(shape.corrupted_run());
  clean_rows = shape.b;
  token_layers = shape.L * rows;
  for (const bool of_parents : {true, false}) {  // in one layer, parents first
    for (std::size_t i = 0; i < patches.size(); ++i) {
      const auto& patch = *patches[i];
      const auto parent = longest.at(start(patch));
      if ((parent == i) != of_parents) continue;
      const auto layer = of_parents ? patch.layers.begin : patch.layers.end - 1;
      admissions[static_cast<std::size_t>(layer)].push_back({i, of_parents ? std::nullopt : std::optional(parent)});
      const auto segment = shape.segment_of(patch);
      rows += shape.rows(segment);
      token_layers += (shape.L - 1 - layer) * shape.rows(segment);
      if (segment.clean_prefix) clean_rows = shape.b + 1;
    }
  }
  token_layers += shape.L * shape.J * clean_rows;
}

std::vector<std::int64_t> SweepPlan::admitted_at(std::int64_t layer, Site site) const {
  std::set<std::int64_t> positions;
  for (const auto& [index, parent] : admissions[static_cast<std::size_t>(layer)]) {
    if (!parent && patches[index]->site == site) positions.insert(patches[index]->position);
  }
  return {positions.begin(), positions.end()};
}

std::vector<std::vector<std::size_t>> cut_into_passes(const std::vector<PatchCells>& patches, const SweepShape& shape,
                                                      std::int64_t row_bytes, std::int64_t memory) {
  const auto corrupted = shape.rows(shape.corrupted_run());
  std::vector<std::vector<std::size_t>> passes(1);
  std::int64_t rows = corrupted;
  for (std::size_t i = 0; i < patches.size(); ++i) {
    if (shape.outcome_of(patches[i].patch) != Outcome::kToBeRun) continue;
    const auto more = shape.rows(patches[i].patch);
    if ((corrupted + more) * row_bytes > memory) {
      throw Error("the memory allowed for restored runs, " + size_text(memory) +
                  ", does not hold the corrupted run and one restored run of " +
                  (shape.J == 1 ? "this prompt" : "these prompts") + "; expected at least " +
                  size_text((corrupted + more) * row_bytes) + ", or fewer samples");
    }
    if ((rows + more) * row_bytes > memory) {
      passes.emplace_back();
      rows = corrupted;
    }
    rows += more;
    passes.back().push_back(i);
  }
  return passes;
}

}  // namespace rometrace

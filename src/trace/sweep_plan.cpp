#include "trace/sweep_plan.hpp"

#include <c10/util/Exception.h>

#include <algorithm>
#include <map>
#include <string>
#include <tuple>
#include <utility>

#include "rometrace/error.hpp"
#include "text/size_text.hpp"

namespace rometrace {
namespace {

bool cuts(const Patch& patch) {
  return patch.changes.front().source == Change::Source::kCut;
}

// The patch without the end of its window: those that are equal so begin alike. Only windows are nested so.
Patch start_of(const Patch& patch) {
  auto start = patch;
  if (start.changes.size() == 1) start.changes.front().layers.end = 0;
  return start;
}

}  // namespace

std::vector<PatchCells> patches_of(const std::vector<Cell>& cells) {
  // Those that begin together stand together, and of these those of a fact.
  std::map<std::tuple<std::int64_t, std::optional<std::int64_t>, Patch>, PatchCells> patches;
  for (std::size_t i = 0; i < cells.size(); ++i) {
    const auto& patch = cells[i].patch;
    auto& entry = patches[{patch.changes.front().layers.begin, patch.fact, patch}];
    entry.patch = patch;
    entry.cells.push_back(i);
  }
  std::vector<PatchCells> list;
  list.reserve(patches.size());
  for (auto& [key, entry] : patches) list.push_back(std::move(entry));
  return list;
}

const Change* Segment::change_at(Site site, std::int64_t layer) const {
  if (patch == nullptr || patch->position != first) return nullptr;
  for (const auto& change : patch->changes) {
    const bool admission = &change == &patch->changes.front() && layer == change.layers.begin;
    if (change.site == site && change.source != Change::Source::kCut && change.layers.contains(layer) && !admission) {
      return &change;
    }
  }
  return nullptr;
}

PositionRange Segment::cut_at(std::int64_t layer) const {
  if (patch == nullptr) return {};
  const auto& change = patch->changes.front();
  return change.source == Change::Source::kCut && change.layers.contains(layer) ? change.cut : PositionRange{};
}

SweepShape::SweepShape(const TracePrompt& prompt, const TraceOptions& options, std::int64_t layers, std::int64_t facts)
    : J(facts),
      N(options.samples),
      R(static_cast<std::int64_t>(prompt.token_ids.size()) + prompt.answer_tokens() - 1),
      L(layers),
      K(prompt.answer_tokens()),
      b(prompt.first_corrupted()),
      last(R - K),
      noising(options.direction == Direction::kNoising) {
  TORCH_INTERNAL_ASSERT(J >= 1 && N >= 1 && 0 <= b && b <= last,
                        "a trace needs a draw and a subject within the prompt");
}

Segment SweepShape::base_run() const {
  return {nullptr, b, R - b, /*other_prefix=*/true, N, 0, J};
}

Segment SweepShape::segment_of(const Patch& patch) const {
  const auto first_fact = patch.fact.value_or(0), facts = patch.fact ? 1 : J;
  // A run without corruption; where that is not the base run, it is the other one.
  if (patch.of_clean_run) {
    return {&patch, patch.position, R - patch.position, /*other_prefix=*/!noising, 1, first_fact, facts};
  }
  // No position up to the first corrupted one has read noise: its state, once patched, stays the other run's. So it
  // needs no row, and those after it see the other run's keys.
  const auto& change = patch.changes.front();
  if (change.site == Site::kState && patch.changes.size() == 1 && patch.position == b && b < last) {
    return {&patch, b + 1, R - b - 1, /*other_prefix=*/true, N, first_fact, facts};
  }
  return {&patch, patch.position, R - patch.position, /*other_prefix=*/false, N, first_fact, facts};
}

Outcome SweepShape::outcome_of(const Patch& patch) const {
  if (patch.of_clean_run) return Outcome::kToBeRun;
  if (patch.position < b) return Outcome::kBase;  // both runs are the same there
  const auto& change = patch.changes.front();
  const bool last_layer = change.layers.begin == L - 1, last_position = patch.position == last;
  if (last_layer && !last_position) return Outcome::kBase;  // only the answer's positions are read from there on
  const bool state = change.site == Site::kState && K == 1 && last_position;
  if (state && (last_layer || (patch.position == b && patch.changes.size() == 1))) return Outcome::kOther;
  return Outcome::kToBeRun;
}

SweepPlan::SweepPlan(const SweepShape& shape, std::vector<const Patch*> patches_to_run)
    : patches(std::move(patches_to_run)),
      admissions(static_cast<std::size_t>(shape.L)),
      before(static_cast<std::size_t>(shape.L)) {
  const auto end_of = [&](std::size_t i) { return patches[i]->changes.front().layers.end; };
  std::map<Patch, std::size_t> longest;
  for (std::size_t i = 0; i < patches.size(); ++i) {
    const auto [entry, is_new] = longest.emplace(start_of(*patches[i]), i);
    if (!is_new && end_of(i) > end_of(entry->second)) entry->second = i;
    for (const auto& change : patches[i]->changes) {
      const bool is_held = change.source == Change::Source::kBase;
      if (is_held && std::find(held.begin(), held.end(), change.site) == held.end()) held.push_back(change.site);
    }
  }
  rows = shape.rows(shape.base_run());
  other_rows = shape.b;
  token_layers = shape.L * rows;
  for (const bool of_parents : {true, false}) {  // in one layer, parents first
    for (std::size_t i = 0; i < patches.size(); ++i) {
      const auto& patch = *patches[i];
      const auto parent = longest.at(start_of(patch));
      if ((parent == i) != of_parents) continue;
      const auto begin = patch.changes.front().layers.begin;
      const bool before_layer = of_parents && cuts(patch);
      const auto layer = of_parents ? begin : end_of(i) - 1;
      if (before_layer) {
        before[static_cast<std::size_t>(layer)].push_back(i);
      } else {
        admissions[static_cast<std::size_t>(layer)].push_back({i, of_parents ? std::nullopt : std::optional(parent)});
      }
      const auto segment = shape.segment_of(patch);
      rows += shape.rows(segment);
      token_layers += (shape.L - (before_layer ? 0 : 1) - layer) * shape.rows(segment);
      if (segment.other_prefix) other_rows = std::max(other_rows, segment.first);
    }
  }
  token_layers += shape.L * shape.J * (shape.noising ? shape.N : 1) * other_rows;
}

std::vector<std::size_t> SweepPlan::admitted_at(std::int64_t layer, Site site) const {
  std::vector<std::size_t> admitted;
  for (const auto& [index, parent] : admissions[static_cast<std::size_t>(layer)]) {
    if (!parent && patches[index]->changes.front().site == site) admitted.push_back(index);
  }
  return admitted;
}

std::vector<std::vector<std::size_t>> cut_into_passes(const std::vector<PatchCells>& patches, const SweepShape& shape,
                                                      std::int64_t row_bytes, std::int64_t memory) {
  const auto corrupted = shape.rows(shape.base_run());
  std::vector<std::vector<std::size_t>> passes(1);
  std::int64_t rows = corrupted;
  for (std::size_t i = 0; i < patches.size(); ++i) {
    if (shape.outcome_of(patches[i].patch) != Outcome::kToBeRun) continue;
    const auto more = shape.rows(patches[i].patch);
    if ((corrupted + more) * row_bytes > memory) {
      throw Error("the memory allowed for patched runs, " + size_text(memory) +
                  ", does not hold the unpatched run and one patched run of " +
                  (shape.J == 1 ? "this prompt" : "these prompts") + "; expected at least " +
                  size_text((corrupted + more) * row_bytes) + (shape.N > 1 ? ", or fewer samples" : ""));
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

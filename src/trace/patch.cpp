#include "rometrace/trace/patch.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/zeros.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <limits>
#include <numeric>
#include <string>
#include <utility>

#include "rometrace/error.hpp"

namespace rometrace {
namespace {

Site site_of(Kind kind) {
  switch (kind) {
    case Kind::kState:
    case Kind::kStateMlpSevered:
    case Kind::kStateAttnSevered:
      return Site::kState;
    case Kind::kMlp:
      return Site::kMlp;
    case Kind::kAttn:
      return Site::kAttn;
    case Kind::kHead:
    case Kind::kKnockout:
      return Site::kMixed;
  }
  TORCH_INTERNAL_ASSERT(false, "kind not handled");
}

// Disjoint; the last position is a group of its own, wherever it lies.
std::vector<KnockoutGroup> groups_of(const TracePrompt& prompt) {
  const auto last = prompt.token_ids.size() - 1;
  const auto [begin, end] = prompt.subject_range;
  std::vector<KnockoutGroup> groups;
  const auto add = [&](std::string_view name, std::size_t from, std::size_t to) {
    if (from < to && last > 0) groups.push_back({name, {from, to}});  // a query must see something
  };
  add("subject", begin, std::min(end, last));
  add("before", 0, begin);
  add("after", end, last);
  add("last", last, last + 1);
  return groups;
}

Patch patch_of(Kind kind, std::int64_t position, std::int64_t layer, const TraceOptions& options, std::int64_t L) {
  Patch patch;
  patch.position = position;
  patch.changes.push_back({site_of(kind), window_of(layer, options.window_of_kind(kind), L)});
  if (kind == Kind::kStateMlpSevered || kind == Kind::kStateAttnSevered) {
    // Up to the layer of the state it changes nothing: the run is the base run there.
    const auto site = severed_sites({kind}).front();
    if (layer + 1 < L) patch.changes.push_back({site, {layer + 1, L}, Change::Source::kBase});
  }
  return patch;
}

Patch knockout_of(const KnockoutGroup& group, std::int64_t last, std::int64_t layer, const TraceOptions& options,
                  std::int64_t L) {
  Patch patch;
  patch.position = last;
  patch.of_clean_run = true;
  Change change{Site::kMixed, window_of(layer, options.knockout_window, L), Change::Source::kCut};
  change.cut = {static_cast<std::int64_t>(group.keys.begin), static_cast<std::int64_t>(group.keys.end)};
  patch.changes.push_back(change);
  return patch;
}

}  // namespace

std::vector<std::int64_t> positions_of(const PositionRule& rule, const TracePrompt& prompt) {
  const auto T = static_cast<std::int64_t>(prompt.token_ids.size());
  const auto begin = static_cast<std::int64_t>(prompt.subject_range.begin),
             end = static_cast<std::int64_t>(prompt.subject_range.end);
  const auto range = [](std::int64_t from, std::int64_t to) {
    std::vector<std::int64_t> positions(static_cast<std::size_t>(to - from));
    std::iota(positions.begin(), positions.end(), from);
    return positions;
  };
  switch (rule.which) {
    case PositionRule::Which::kAll:
      return range(0, T);
    case PositionRule::Which::kSubject:
      return range(begin, end);
    case PositionRule::Which::kSubjectLast:
      return {end - 1};
    case PositionRule::Which::kLast:
      return {T - 1};
    case PositionRule::Which::kList:
      if (!rule.list.empty() && rule.list.back() >= T) {
        throw Error("position " + std::to_string(rule.list.back()) + " is not in the prompt, whose " +
                    std::to_string(T) + " tokens are at 0 to " + std::to_string(T - 1));
      }
      return rule.list;
  }
  TORCH_INTERNAL_ASSERT(false, "rule not handled");
}

LayerRange layers_of(const NeuronOptions& options, const DecoderConfig& config) {
  refuse_mixtures(config, "neurons are");
  const auto L = config.layers, F = config.mlp_width;
  const auto has = "; the model has layers 0 to " + std::to_string(L - 1) + " of " + std::to_string(F) + " neurons";
  LayerRange range = options.layers.value_or(LayerRange{0, L});
  if (range.end > L) throw Error("no layer " + std::to_string(range.end - 1) + has);
  if (options.given.empty()) return range;
  range = {L, 0};
  for (const auto& neuron : options.given) {
    if (neuron.layer >= L || neuron.neuron >= F) throw Error("no neuron " + to_string({neuron}) + has);
    range = {std::min(range.begin, neuron.layer), std::max(range.end, neuron.layer + 1)};
  }
  return range;
}

at::Tensor neurons_of(const Change& change, std::int64_t layer, std::int64_t F) {
  if (change.order != nullptr) return change.order->ranks[layer - change.order->layers.begin] < change.count;
  auto one = at::zeros({F}, at::kBool);
  one[change.neuron.value()] = true;
  return one;
}

std::vector<Site> sites_of(const std::vector<Kind>& kinds) {
  std::vector<Site> sites;
  for (const Kind kind : kinds) {
    const auto site = site_of(kind);
    if (kind != Kind::kKnockout && std::find(sites.begin(), sites.end(), site) == sites.end()) sites.push_back(site);
  }
  return sites;
}

std::vector<Site> severed_sites(const std::vector<Kind>& kinds) {
  std::vector<Site> sites;
  for (const auto& [kind, site] :
       {std::pair(Kind::kStateMlpSevered, Site::kMlp), std::pair(Kind::kStateAttnSevered, Site::kAttn)}) {
    if (std::find(kinds.begin(), kinds.end(), kind) != kinds.end()) sites.push_back(site);
  }
  return sites;
}

std::vector<Cell> cells_of(const TracePrompt& prompt, const TraceOptions& options, const DecoderConfig& config) {
  const auto L = config.layers, last = static_cast<std::int64_t>(prompt.token_ids.size()) - 1;
  std::vector<Cell> cells;
  const auto positions = positions_of(options.positions, prompt);
  for (std::size_t grid = 0; grid < options.kinds.size(); ++grid) {
    const auto kind = options.kinds[grid];
    std::size_t index = 0;
    if (kind == Kind::kKnockout) {
      for (const auto& group : groups_of(prompt)) {
        for (std::int64_t layer = 0; layer < L; ++layer) {
          cells.push_back({grid, index++, knockout_of(group, last, layer, options, L)});
        }
      }
      continue;
    }
    const auto H = kind == Kind::kHead ? config.heads : 1;
    for (const auto position : positions) {
      if (position < prompt.first_corrupted()) {
        index += static_cast<std::size_t>(L * H);
        continue;
      }
      for (std::int64_t layer = 0; layer < L; ++layer) {
        auto patch = patch_of(kind, position, layer, options, L);
        for (std::int64_t head = 0; head < H; ++head) {
          if (kind == Kind::kHead) patch.changes.front().head = head;
          cells.push_back({grid, index++, patch});
        }
      }
    }
  }
  return cells;
}

CausalGrid empty_grid(Kind kind, const TracePrompt& prompt, const TraceOptions& options, const DecoderConfig& config,
                      const Trace& trace) {
  constexpr auto kNone = std::numeric_limits<double>::quiet_NaN();
  CausalGrid grid;
  grid.kind = kind;
  grid.window = options.window_of_kind(kind);
  const bool knockout = kind == Kind::kKnockout;
  if (knockout) {
    grid.groups = groups_of(prompt);
  } else {
    grid.positions = positions_of(options.positions, prompt);
  }
  if (kind == Kind::kHead) grid.heads = config.heads;
  const auto cells = grid.rows() * static_cast<std::size_t>(config.layers * grid.heads);
  const bool clean_base = knockout || options.direction == Direction::kNoising;
  const double no_error = !knockout && trace.samples > 1 ? 0 : kNone;
  grid.scores.assign(cells, clean_base ? trace.high_score : trace.low_score);
  grid.standard_error.assign(cells, clean_base ? no_error : trace.low_standard_error);
  for (const auto& measured : trace.measured) {
    grid.measured.push_back({std::vector<double>(cells, clean_base ? measured.high : measured.low),
                             std::vector<double>(cells, clean_base ? no_error : measured.low_standard_error)});
  }
  return grid;
}

}  // namespace rometrace

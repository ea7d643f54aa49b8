#include "trace/pass_schedule.hpp"

#include <c10/util/Exception.h>

#include <algorithm>
#include <map>
#include <span>
#include <tuple>
#include <utility>

namespace rometrace {
namespace {

class ScheduleMaker {
 public:
  ScheduleMaker(const SweepShape& shape, const SweepPlan& plan, const DecoderConfig& config, const ScheduleSizes& sizes,
                PassSchedule& schedule)
      : shape_(shape), plan_(plan), config_(config), sizes_(sizes), schedule_(schedule), segments_(schedule.segments) {}

  void make() {
    segments_ = {shape_.base_run()};
    schedule_.segment_of_patch.resize(plan_.patches.size());
    for (std::int64_t layer = 0; layer < shape_.L; ++layer) schedule_.layers.push_back(of_layer(layer));
    number_positions();
    find_answers();
  }

 private:
  using List = std::vector<std::int64_t>;
  /// Of the other or the base runs, which facts' from which one on, how many draws of each, which of these.
  using PrefixKey = std::tuple<bool, std::int64_t, std::int64_t, std::int64_t, std::int64_t>;

  // Rows and places that are written there, while they are gathered.
  struct Lists {
    List rows, from;
  };

  Numbers add(const List& list) {
    auto& numbers = schedule_.numbers;
    const Numbers added{static_cast<std::int64_t>(numbers.size()), static_cast<std::int64_t>(list.size())};
    numbers.insert(numbers.end(), list.begin(), list.end());
    return added;
  }
  Writes add(const Lists& lists) { return {add(lists.rows), add(lists.from)}; }

  std::int64_t base_positions() const { return shape_.R - shape_.b; }
  std::int64_t rows_so_far() const { return segments_.back().row + shape_.rows(segments_.back()); }

  // The place in a list [J, S] of the other run that draw `draw` of a segment belongs to.
  std::int64_t other_of(const Segment& segment, std::int64_t draw) const {
    const auto S = sizes_.other_draws, fact = segment.first_fact + draw / segment.draws_of_a_fact;
    return fact * S + (S > 1 && segment.draws_of_a_fact > 1 ? draw % segment.draws_of_a_fact : 0);
  }
  // Likewise in [J, N], of the base run.
  std::int64_t base_of(const Segment& segment, std::int64_t draw) const {
    const auto of_facts = segment.draws_of_a_fact > 1 || shape_.N == 1 ? draw : draw * shape_.N;
    return segment.first_fact * shape_.N + of_facts;
  }
  // The place in [J N (R - b)] of a position in the base run of a draw.
  std::int64_t base_place(const Segment& segment, std::int64_t draw, std::int64_t position) const {
    return base_of(segment, draw) * base_positions() + position - shape_.b;
  }
  // The places, in [J S (R - b)] and among the neurons' [J S positions], of the patch's position in the other run.
  std::int64_t other_place(const Segment& segment, std::int64_t draw) const {
    return other_of(segment, draw) * base_positions() + segment.patch->position - shape_.b;
  }
  std::int64_t neuron_place(const Segment& segment, std::int64_t draw) const {
    const auto& positions = sizes_.neuron_positions;
    const auto at = std::lower_bound(positions.begin(), positions.end(), segment.patch->position);
    return other_of(segment, draw) * static_cast<std::int64_t>(positions.size()) + (at - positions.begin());
  }

  const Segment& give_rows(std::size_t patch) {
    auto segment = shape_.segment_of(*plan_.patches[patch]);
    segment.row = rows_so_far();
    schedule_.segment_of_patch[patch] = segments_.size();
    return segments_.emplace_back(segment);
  }

  LayerSchedule of_layer(std::int64_t index) {
    LayerSchedule layer;
    layer.given_before = give_before(index);
    layer.rows = rows_so_far();
    layer.block_rows = sizes_.blocks.of(layer.rows);
    layer.blocks = blocks_of(layer);
    for (auto& block : layer.blocks) fill(block, index, layer);
    layer.base_blocks = static_cast<std::size_t>(
        std::count_if(layer.blocks.begin(), layer.blocks.end(), [](const auto& block) { return block.of_base_run(); }));
    give_after(index, layer);
    return layer;
  }

  // Patches that change a layer's attention have rows of the clean run.
  Copies give_before(std::int64_t layer) {
    Copies given{rows_so_far(), {}};
    List from;
    for (const auto patch : plan_.before[static_cast<std::size_t>(layer)]) {
      const auto& segment = give_rows(patch);
      for (std::int64_t draw = 0; draw < segment.draws(); ++draw) {
        const auto place = shape_.noising ? base_place(segment, draw, segment.first)
                                          : other_of(segment, draw) * sizes_.other_inputs + segment.first;
        for (std::int64_t i = 0; i < segment.length; ++i) from.push_back(place + i);
      }
    }
    given.from = add(from);
    return given;
  }

  void give_after(std::int64_t index, LayerSchedule& layer) {
    const auto& admissions = plan_.admissions[static_cast<std::size_t>(index)];
    List of_base, of_parents;
    layer.given_of_base.row = rows_so_far();
    for (const auto& [patch, parent] : admissions) {  // those with a parent come last
      const auto& segment = give_rows(patch);
      if (!parent) {
        for (std::int64_t draw = 0; draw < segment.draws(); ++draw) {
          const auto place = base_place(segment, draw, segment.first);
          for (std::int64_t i = 0; i < segment.length; ++i) of_base.push_back(place + i);
        }
        continue;
      }
      const auto& from = segments_[schedule_.segment_of_patch[*parent]];
      for (std::int64_t row = 0; row < shape_.rows(from); ++row) of_parents.push_back(from.row + row);
    }
    layer.given_of_base.from = add(of_base);
    layer.given_of_parents = {layer.given_of_base.row + layer.given_of_base.from.count, add(of_parents)};
    add_beginnings(index, layer);
  }

  void add_beginnings(std::int64_t index, LayerSchedule& layer) {
    const auto at_once = static_cast<std::size_t>(std::max<std::int64_t>(1, layer.block_rows / shape_.draws()));
    const auto add_all = [&](Site site, const std::vector<std::size_t>& patches) {
      for (std::size_t begin = 0; begin < patches.size(); begin += at_once) {
        const auto some = std::span(patches).subspan(begin, std::min(at_once, patches.size() - begin));
        layer.beginnings.push_back(beginning_of(site, some, layer));
      }
    };
    for (const auto site : {Site::kState, Site::kMlp, Site::kAttn, Site::kMixed}) {
      auto patches = plan_.admitted_at(index, site);
      std::erase_if(patches, [&](std::size_t patch) {  // a state that stays the other run's has no row
        const auto& segment = segments_[schedule_.segment_of_patch[patch]];
        return segment.first != segment.patch->position;
      });
      add_all(site, patches);
    }
    // A changed neuron adds its row of the MLP's last matrix to the product; a set of them has a product of its own.
    std::vector<std::size_t> single, sets;
    for (const auto patch : plan_.admitted_at(index, Site::kMlpHidden)) {
      (plan_.patches[patch]->changes.front().neuron ? single : sets).push_back(patch);
    }
    add_all(Site::kMlpHidden, single);
    add_all(Site::kMlpHidden, sets);
  }

  Beginning beginning_of(Site site, std::span<const std::size_t> patches, LayerSchedule& layer) {
    const bool neurons = site == Site::kMlpHidden;
    const auto F = config_.mlp_width;
    List rows, base, other, ranks, counts, base_neurons, other_neurons, output_rows;
    Lists heads;
    for (const auto patch : patches) {
      const auto& segment = segments_[schedule_.segment_of_patch[patch]];
      const auto& change = segment.patch->changes.front();
      const auto rank = neurons && !change.neuron ? order_of(change, layer) : 0;
      if (change.neuron) layer.neurons.push_back(*change.neuron);
      for (std::int64_t draw = 0; draw < segment.draws(); ++draw) {
        const auto from = base_place(segment, draw, segment.first);
        const auto to = neurons ? neuron_place(segment, draw) : other_place(segment, draw);
        if (change.head) {
          heads.rows.push_back(static_cast<std::int64_t>(rows.size()) * config_.heads + *change.head);
          heads.from.push_back(to * config_.heads + *change.head);
        }
        if (change.neuron) {
          base_neurons.push_back(from * F + *change.neuron);
          other_neurons.push_back(to * F + *change.neuron);
          output_rows.push_back(static_cast<std::int64_t>(layer.neurons.size()) - 1);
        } else if (neurons) {
          ranks.push_back(rank);
          counts.push_back(change.count);
        }
        rows.push_back(segment.row + draw * segment.length);
        base.push_back(from);
        other.push_back(to);
      }
    }
    return {site,
            add(rows),
            add(base),
            add(other),
            add(heads),
            {add(ranks), add(counts)},
            add(base_neurons),
            add(other_neurons),
            add(output_rows)};
  }

  // Its place among the orders of the layer.
  static std::int64_t order_of(const Change& change, LayerSchedule& layer) {
    TORCH_INTERNAL_ASSERT(change.order != nullptr, "a single neuron is changed in the layer in which its run begins");
    const auto found = std::find(layer.orders.begin(), layer.orders.end(), change.order);
    const auto place = found - layer.orders.begin();
    if (found == layer.orders.end()) layer.orders.push_back(change.order);
    return place;
  }

  // The base run's rows, and then the patched runs', cut as evenly as segments allow.
  std::vector<BlockSchedule> blocks_of(const LayerSchedule& layer) const {
    std::vector<BlockSchedule> blocks;
    const auto block_rows = layer.block_rows, base_rows = shape_.rows(segments_[0]);
    const auto patched_rows = layer.rows - base_rows;
    const auto cut = std::max<std::int64_t>(1, (patched_rows + block_rows - 1) / block_rows);
    std::int64_t last = -1;  // the cut that the last block is of
    bool last_is_whole = false;
    for (std::size_t i = 0; i < segments_.size(); ++i) {
      const auto& segment = segments_[i];
      const auto rows = shape_.rows(segment), of_segment = segment.draws();
      const auto middle = segment.row - base_rows + rows / 2;
      const auto mine = i == 0 ? -1 : middle * cut / std::max<std::int64_t>(1, patched_rows);
      const bool joins = i > 1 && mine == last && last_is_whole;
      last = mine;
      if (joins) {
        blocks.back().rows += rows;
        blocks.back().parts.push_back({i, 0, of_segment});
        continue;
      }
      const auto draws = std::clamp<std::int64_t>(block_rows / segment.length, 1, of_segment);
      last_is_whole = draws == of_segment;
      for (std::int64_t draw = 0; draw < of_segment; draw += draws) {
        const auto count = std::min(draws, of_segment - draw);
        auto& block = blocks.emplace_back();
        block.parts = {{i, draw, count}};
        block.row = segment.row + draw * segment.length;
        block.rows = count * segment.length;
      }
    }
    return blocks;
  }

  void fill(BlockSchedule& block, std::int64_t index, LayerSchedule& layer) {
    block.asking = used_rows(block, Site::kAttn, index);
    block.used = used_rows(block, Site::kMlp, index);
    add_attention(block, index);
    add_heads(block, index);
    add_neurons(block, index, layer);
    block.attn = output_writes(block, Site::kAttn, index);
    block.mlp = output_writes(block, Site::kMlp, index);
  }

  // Of each draw, the first row of `segment` whose output of `site` is used.
  std::int64_t first_used(const Segment& segment, Site site, std::int64_t layer) const {
    const auto first = layer == shape_.L - 1 ? shape_.last - segment.first : 0;
    return first == 0 && segment.change_at(site, layer) != nullptr ? 1 : std::max<std::int64_t>(first, 0);
  }

  std::optional<Numbers> used_rows(const BlockSchedule& block, Site site, std::int64_t layer) {
    List used;
    used.reserve(static_cast<std::size_t>(block.rows));
    std::int64_t row = 0;
    for (const auto& part : block.parts) {
      const auto& segment = segments_[part.segment];
      const auto first = first_used(segment, site, layer);
      for (std::int64_t draw = 0; draw < part.count; ++draw, row += segment.length) {
        for (auto at = first; at < segment.length; ++at) used.push_back(row + at);
      }
    }
    if (static_cast<std::int64_t>(used.size()) == block.rows) return std::nullopt;
    return add(used);
  }

  void add_attention(BlockSchedule& block, std::int64_t layer) {
    std::vector<PrefixKey> keys;
    for (const auto& part : block.parts) {
      const auto& segment = segments_[part.segment];
      const PrefixKey key{segment.other_prefix, segment.first_fact, segment.draws_of_a_fact, part.first, part.count};
      auto prefix = static_cast<std::size_t>(std::find(keys.begin(), keys.end(), key) - keys.begin());
      if (prefix == keys.size()) {
        keys.push_back(key);
        block.prefixes.push_back(prefix_of(segment, key));
      }
      block.segments.push_back({part.count, segment.first, segment.length, first_used(segment, Site::kAttn, layer),
                                prefix, segment.cut_at(layer)});
    }
    if (!sizes_.by_products) return;
    block.groups = group_segments(block.segments);
    for (auto& group : block.groups) block.tables.push_back(add(std::exchange(group.list, {})));
  }

  // The runs that a part's draws see before their own rows: each list is there once.
  Numbers prefix_of(const Segment& segment, const PrefixKey& key) {
    const auto [entry, is_new] = prefixes_.try_emplace(key);
    if (!is_new) return entry->second;
    const auto [other_prefix, first_fact, draws_of_a_fact, first, count] = key;
    const auto others = shape_.J * sizes_.other_draws;  // behind them stand the base runs
    List runs;
    for (auto draw = first; draw < first + count; ++draw) {
      runs.push_back(other_prefix ? other_of(segment, draw) : others + base_of(segment, draw));
    }
    if (runs.front() == runs.back()) runs.resize(1);
    return entry->second = add(runs);
  }

  // The first row of each draw has the other run's slice of a head, where a window goes on.
  void add_heads(BlockSchedule& block, std::int64_t layer) {
    Lists heads;
    std::int64_t row = 0;
    for (const auto& part : block.parts) {
      const auto& segment = segments_[part.segment];
      const auto first = first_used(segment, Site::kAttn, layer);
      const auto* change = segment.change_at(Site::kMixed, layer);
      for (std::int64_t draw = 0; draw < part.count; ++draw, row += segment.length - first) {
        if (change == nullptr || first > 0) continue;
        heads.rows.push_back(row * config_.heads + *change->head);
        heads.from.push_back(other_place(segment, part.first + draw) * config_.heads + *change->head);
      }
    }
    block.heads = add(heads);
  }

  // Likewise the other run's neurons, where a set of them goes on.
  void add_neurons(BlockSchedule& block, std::int64_t index, LayerSchedule& layer) {
    Lists neurons;
    List ranks, counts;
    std::int64_t row = 0;
    block.looks_at_neurons = block.of_base_run() && !plan_.admitted_at(index, Site::kMlpHidden).empty();
    for (const auto& part : block.parts) {
      const auto& segment = segments_[part.segment];
      const auto first = first_used(segment, Site::kMlp, index);
      const auto* change = segment.change_at(Site::kMlpHidden, index);
      if (change != nullptr) block.looks_at_neurons = true;
      const bool used = change != nullptr && first == 0;
      const auto rank = used ? order_of(*change, layer) : 0;
      for (std::int64_t draw = 0; draw < part.count; ++draw, row += segment.length - first) {
        if (!used) continue;
        neurons.rows.push_back(row);
        neurons.from.push_back(neuron_place(segment, part.first + draw));
        ranks.push_back(rank);
        counts.push_back(change->count);
      }
    }
    block.neurons = add(neurons);
    block.neuron_sets = {add(ranks), add(counts)};
  }

  OutputWrites output_writes(const BlockSchedule& block, Site site, std::int64_t layer) {
    Lists other, base;
    std::int64_t row = 0;
    for (const auto& part : block.parts) {
      const auto& segment = segments_[part.segment];
      const auto* change = segment.change_at(site, layer);
      // In the last layer, for the positions that are read only.
      const bool used = change != nullptr && (layer < shape_.L - 1 || segment.first >= shape_.last);
      for (std::int64_t draw = 0; draw < part.count; ++draw, row += segment.length) {
        if (!used) continue;
        const bool held = change->source == Change::Source::kBase;
        const auto of_all = part.first + draw;
        (held ? base : other).rows.push_back(row);
        (held ? base : other)
            .from.push_back(held ? base_place(segment, of_all, segment.first) : other_place(segment, of_all));
      }
    }
    return {add(other), add(base)};
  }

  void number_positions() {
    if (config_.rotary.empty()) return;
    List positions;
    for (const auto& segment : segments_) {
      for (std::int64_t draw = 0; draw < segment.draws(); ++draw) {
        for (auto position = segment.first; position < shape_.R; ++position) positions.push_back(position);
      }
    }
    schedule_.positions = add(positions);
    List shared;
    for (std::int64_t run = 0; run < shape_.J * sizes_.other_draws; ++run) {
      for (std::int64_t position = 0; position < plan_.other_rows; ++position) shared.push_back(position);
    }
    shared.insert(shared.end(), positions.begin(), positions.begin() + shape_.rows(segments_[0]));
    schedule_.shared_positions = add(shared);
  }

  void find_answers() {
    List rows, questions;
    for (const auto& segment : segments_) {
      for (std::int64_t draw = 0; draw < segment.draws(); ++draw) {
        for (std::int64_t k = 0; k < shape_.K; ++k) {
          rows.push_back(segment.row + (draw + 1) * segment.length - shape_.K + k);
        }
        questions.push_back(segment.first_fact + draw / segment.draws_of_a_fact);
      }
    }
    schedule_.answers = add(rows);
    schedule_.questions = add(questions);
    schedule_.answer_block = std::max<std::int64_t>(1, sizes_.blocks.of(schedule_.answers.count) / shape_.K);
  }

  const SweepShape& shape_;
  const SweepPlan& plan_;
  const DecoderConfig& config_;
  const ScheduleSizes& sizes_;
  PassSchedule& schedule_;
  std::vector<Segment>& segments_;
  std::map<PrefixKey, Numbers> prefixes_;
};

}  // namespace

std::int64_t full_block_rows(at::Device device) {
  constexpr std::int64_t kOnCpu = 1024, kElsewhere = 8192;
  return device.is_cpu() ? kOnCpu : kElsewhere;
}

std::int64_t BlockRule::of(std::int64_t rows) const {
  constexpr std::int64_t kLeast = 64, kWorthSeveral = 128;
  if (asked > 0) return asked;
  if (workers == 1) return full;
  const std::int64_t wanted = rows >= 2 * workers * kWorthSeveral ? 2 : 1;
  const auto each = std::max(wanted, (rows + workers * full - 1) / (workers * full));
  const auto blocks = std::clamp<std::int64_t>(rows / kLeast, 1, workers * each);
  return (rows + blocks - 1) / blocks;
}

bool LayerSchedule::has_beginning(Site site) const {
  return std::any_of(beginnings.begin(), beginnings.end(),
                     [&](const Beginning& beginning) { return beginning.site == site; });
}

PassSchedule::PassSchedule(const SweepShape& shape, const SweepPlan& plan, const DecoderConfig& config,
                           const ScheduleSizes& sizes) {
  ScheduleMaker(shape, plan, config, sizes, *this).make();
}

}  // namespace rometrace

#include "rometrace/summary/summary.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <list>
#include <map>
#include <span>

#include "rometrace/error.hpp"
#include "rometrace/text/input_file.hpp"
#include "summary/coverage.hpp"
#include "summary/estimates.hpp"
#include "summary/json_path.hpp"
#include "summary/neuron_sums.hpp"
#include "summary/reading_sums.hpp"
#include "summary/role_rows.hpp"
#include "summary/traced_fact.hpp"

namespace rometrace {
namespace {

using nlohmann::json;

/// Paths that are severed: where the kind "state" was traced too, there is a gap.
constexpr std::array<std::string_view, 2> kSevered = {"mlp", "attn"};

/// The paper's order, then its successors'; what is not in it comes after.
constexpr std::array<std::string_view, 6> kKinds = {
    "state", "mlp", "attn", "head", "state_mlp_severed", "state_attn_severed"};

/// Effects of the state less those with a path severed, at the positions that both grids have.
SummaryGrid gap_of(const SummaryGrid& state, const SummaryGrid& severed, const TracedFact& fact) {
  SummaryGrid gap;
  gap.layers = fact.layers;
  gap.positions.emplace();
  const auto position_in = [](const SummaryGrid& grid, std::int64_t row) {
    return grid.positions ? (*grid.positions)[static_cast<std::size_t>(row)] : row;
  };
  for (std::int64_t i = 0, j = 0; i < state.rows && j < severed.rows;) {
    const auto here = position_in(state, i), there = position_in(severed, j);
    if (here == there) {
      ++gap.rows;
      gap.positions->push_back(here);
      const auto whole = rows_of(state, i, 1), cut = rows_of(severed, j, 1);
      for (std::size_t layer = 0; layer < whole.size(); ++layer) {
        gap.scores.push_back(fact.sign() * (whole[layer] - cut[layer]));
      }
    }
    i += here <= there ? 1 : 0;
    j += there <= here ? 1 : 0;
  }
  return gap;
}

/// What corrupting takes away, less what restoring brings back.
SummaryGrid interaction_of(const SummaryGrid& denoised, const SummaryGrid& noised, const TracedFact& fact) {
  auto interaction = denoised;
  for (std::size_t i = 0; i < interaction.scores.size(); ++i) {
    interaction.scores[i] = (fact.high - noised.scores[i]) - (denoised.scores[i] - fact.low);
  }
  return interaction;
}

/// `heads` as in SummaryGrid.
Peak peak_of(ClusterMeans& effects, std::int64_t heads) {
  const auto columns = std::max<std::int64_t>(1, heads);
  const auto& aie = effects.means();
  const auto largest = std::max_element(aie.begin(), aie.end());
  const auto place = largest - aie.begin();
  Peak peak;
  peak.layer = place / columns;
  if (heads > 0) peak.head = place % columns;
  peak.aie = *largest;
  auto peaks = effects.replicate_peaks();
  if (effects.facts() < 2 || peaks.empty()) return peak;
  std::sort(peaks.begin(), peaks.end());
  const auto same = std::count(peaks.begin(), peaks.end(), static_cast<double>(place));
  peak.share = static_cast<double>(same) / static_cast<double>(peaks.size());
  // Layers are whole: the neighbours outwards, not a layer between them.
  const auto last = static_cast<double>(peaks.size() - 1);
  const auto at = [&](double rank) {
    return static_cast<std::int64_t>(peaks[static_cast<std::size_t>(rank)]) / columns;
  };
  peak.layers = {at(std::floor(kLowTail * last)), at(std::ceil(kHighTail * last))};
  return peak;
}

EffectSummary effect_summary(ClusterMeans& effects, std::int64_t heads) {
  EffectSummary summary{error_bars(effects), effects.facts(), std::llround(effects.count()), effects.means(), {}};
  summary.peak = peak_of(effects, heads);
  return summary;
}

/// Sums of one role in one kind over facts; a cell is a layer, or a layer's head.
class RoleSums {
 public:
  RoleSums(std::size_t cells, std::size_t replicates)
      : effects_(cells, replicates), scores_(cells, 0), largest_(2, replicates) {}

  /// `rows`: the scores of the fact's tokens with the role, row-major [count, cells].
  void add(std::span<const double> rows, std::int64_t count, const TracedFact& fact,
           std::span<const std::uint8_t> weights) {
    const auto cells = rows.size() / static_cast<std::size_t>(count);
    const double sign = fact.sign(), base = fact.base();
    score_sums_.assign(cells, 0);
    effect_sums_.assign(cells, 0);
    for (std::size_t i = 0; i < rows.size(); ++i) {
      score_sums_[i % cells] += rows[i];
      effect_sums_[i % cells] += sign * (rows[i] - base);
    }
    effects_.add(static_cast<double>(count), effect_sums_, weights);
    scores_.add(static_cast<double>(count), score_sums_, {});
    largest_.add(1, largest_of(rows, fact), weights);
  }

  /// Largest score and largest effect.
  static std::array<double, 2> largest_of(std::span<const double> scores, const TracedFact& fact) {
    const double largest = *std::max_element(scores.begin(), scores.end());
    return {largest, fact.noising ? fact.high - *std::min_element(scores.begin(), scores.end()) : largest - fact.low};
  }

  RoleSummary result(std::int64_t heads) {
    return {effect_summary(effects_, heads), scores_.means(), estimate(largest_, 0), estimate(largest_, 1)};
  }

 private:
  ClusterMeans effects_;  // [cells]
  ClusterMeans scores_;   // [cells]
  ClusterMeans largest_;  // score, effect
  std::vector<double> score_sums_, effect_sums_;
};

/// Sums of one kind over facts.
class KindSums {
 public:
  KindSums(const SummaryGrid& grid, std::size_t replicates)
      : kind_(grid.kind), window_(grid.window), heads_(grid.heads), replicates_(replicates), largest_(2, replicates) {}

  const std::string& kind() const { return kind_; }

  void add(const TracedFact& fact, const SummaryGrid& grid, std::span<const std::uint8_t> weights) {
    largest_.add(1, RoleSums::largest_of(grid.scores, fact), weights);
    for_each_role(grid, fact, [&](std::size_t role, std::int64_t row, std::int64_t rows) {
      auto& sums = roles_[role];
      if (!sums) sums.emplace(static_cast<std::size_t>(grid.cells()), replicates_);
      sums->add(rows_of(grid, row, rows), rows, fact, weights);
    });
  }

  KindSummary result() {
    KindSummary summary;
    summary.kind = kind_;
    summary.window = window_;
    summary.heads = heads_;
    summary.largest_score = estimate(largest_, 0);
    summary.largest_effect = estimate(largest_, 1);
    for (std::size_t i = 0; i < kRoles.size(); ++i) {
      if (roles_[i]) summary.roles[i] = roles_[i]->result(heads_);
    }
    return summary;
  }

 private:
  std::string kind_;
  std::int64_t window_;
  std::int64_t heads_;
  std::size_t replicates_;
  ClusterMeans largest_;  // score, effect
  std::array<std::optional<RoleSums>, kRoles.size()> roles_;
};

/// Sums of differences of effects: what severing a path takes away, or a kind's interactions.
class GapSums {
 public:
  explicit GapSums(std::int64_t heads = 0) : heads_(heads) {}

  void add(const TracedFact& fact, const SummaryGrid& gap, std::size_t replicates,
           std::span<const std::uint8_t> weights) {
    for_each_role(gap, fact, [&](std::size_t role, std::int64_t row, std::int64_t rows) {
      auto& sums = roles_[role];
      if (!sums) sums.emplace(static_cast<std::size_t>(gap.cells()), replicates);
      const auto gaps = rows_of(gap, row, rows);
      sums_.assign(static_cast<std::size_t>(gap.cells()), 0);
      for (std::size_t i = 0; i < gaps.size(); ++i) sums_[i % sums_.size()] += gaps[i];
      sums->add(static_cast<double>(rows), sums_, weights);
    });
  }

  std::array<EffectSummary, kRoles.size()> result() {
    std::array<EffectSummary, kRoles.size()> roles;
    for (std::size_t i = 0; i < kRoles.size(); ++i) {
      if (roles_[i]) roles[i] = effect_summary(*roles_[i], heads_);
    }
    return roles;
  }

 private:
  std::int64_t heads_;
  std::array<std::optional<ClusterMeans>, kRoles.size()> roles_;  // [L], or [L H]
  std::vector<double> sums_;
};

/// Sums of the relative changes of each group that is knocked out.
class KnockoutSums {
 public:
  explicit KnockoutSums(std::int64_t window) : window_(window) {}

  void add(const TracedFact& fact, std::size_t replicates, std::span<const std::uint8_t> weights) {
    for (const auto& knockout : fact.knockouts) {
      auto& sums = groups_[knockout.group];
      if (!sums) sums.emplace(knockout.changes.size(), replicates);
      sums->add(1, knockout.changes, weights);
    }
  }

  KnockoutSummary result() {
    KnockoutSummary summary;
    summary.window = window_;
    for (std::size_t i = 0; i < groups_.size(); ++i) {
      if (auto& sums = groups_[i]) summary.groups[i] = {error_bars(*sums), sums->facts(), sums->means()};
    }
    return summary;
  }

 private:
  std::int64_t window_;
  std::array<std::optional<ClusterMeans>, kKnockoutGroups.size()> groups_;  // [L]
};

std::ptrdiff_t place_of(std::string_view kind) {
  return std::find(kKinds.begin(), kKinds.end(), kind) - kKinds.begin();
}

/// Means that a group keeps for each role of this fact's.
std::size_t cells_of(const TracedFact& fact) {
  std::int64_t cells = fact.knockout_window ? fact.layers : 0;
  for (const auto& grid : fact.grids) cells += grid.cells();
  for (const auto& grid : fact.noising_grids) cells += 2 * grid.cells();  // and the interaction
  for (const auto path : kSevered) {
    if (fact.find("state_" + std::string(path) + "_severed") != nullptr) cells += fact.layers;
  }
  for (const auto& reading : fact.readings) {
    for (const auto& grid : reading.grids) cells += grid.cells();
  }
  if (fact.neurons) cells += static_cast<std::int64_t>(3 * fact.neurons->sizes.size());  // the best and two controls
  return static_cast<std::size_t>(cells);
}

std::optional<std::string> relation_of_fact(const SummaryLine& line) {
  const auto* relation = value_at(line.json, "fact.relation");
  return relation != nullptr && relation->is_string() ? std::optional(relation->get<std::string>()) : std::nullopt;
}

/// Of its group.
std::string relation_name(const SummaryLine& line) {
  return relation_of_fact(line).value_or("(none)");
}

std::optional<std::string> subject_text(const SummaryLine& line) {
  const auto* subject = value_at(line.json, "subject");
  return subject != nullptr && subject->is_string() ? std::optional(subject->get<std::string>()) : std::nullopt;
}

std::string text_of(const SummaryLine& line, const char* name, const std::string& missing) {
  const auto found = line.json.find(name);
  return found != line.json.end() && found->is_string() ? found->get<std::string>() : missing;
}

}  // namespace

/// Sums over the facts of one group.
class Summary::Group {
 public:
  explicit Group(std::size_t replicates) : replicates_(replicates), scores_(3, replicates), neurons_(replicates) {}

  void add(const TracedFact& fact, std::span<const std::uint8_t> weights) {
    scores_.add(1, std::array{fact.high, fact.low, fact.high - fact.low}, weights);
    add_kinds(kinds_, fact, fact.grids, weights);
    add_gaps(fact, weights);
    add_noising(fact, weights);
    readings_.add(fact, replicates_, weights);
    neurons_.add(fact, weights);
    if (!fact.knockout_window) return;
    if (!knockout_) knockout_.emplace(*fact.knockout_window);
    knockout_->add(fact, replicates_, weights);
  }

  /// `neurons`: what is known of which neurons its facts tell of.
  GroupSummary result(std::optional<NeuronSummary> neurons) {
    GroupSummary summary;
    if (neurons) neurons_.give(*neurons);
    summary.neurons = std::move(neurons);
    summary.facts = scores_.facts();
    summary.high_score = estimate(scores_, 0);
    summary.low_score = estimate(scores_, 1);
    summary.total_effect = estimate(scores_, 2);
    summary.kinds = results_of(kinds_);
    for (std::size_t i = 0; i < kSevered.size(); ++i) {
      if (gaps_[i]) summary.gaps.push_back({std::string(kSevered[i]), gaps_[i]->result()});
    }
    summary.noising = results_of(noising_);
    for (const auto& kind : summary.noising) {
      auto roles = interactions_.at(kind.kind).result();
      for (auto& role : roles) role.peak.reset();  // what is furthest from 0 may be below it
      summary.interactions.push_back({kind.kind, kind.window, kind.heads, std::move(roles)});
    }
    if (knockout_) summary.knockout = knockout_->result();
    readings_.give(summary);
    return summary;
  }

 private:
  void add_kinds(std::list<KindSums>& kinds, const TracedFact& fact, std::span<const SummaryGrid> grids,
                 std::span<const std::uint8_t> weights) const {
    for (const auto& grid : grids) {
      if (grid.rows == 0) continue;
      auto sums = std::find_if(kinds.begin(), kinds.end(), [&](const auto& k) { return k.kind() == grid.kind; });
      if (sums == kinds.end()) sums = kinds.emplace(kinds.end(), grid, replicates_);
      sums->add(fact, grid, weights);
    }
  }

  static std::vector<KindSummary> results_of(std::list<KindSums>& kinds) {
    std::vector<KindSummary> results;
    for (auto& sums : kinds) results.push_back(sums.result());
    std::stable_sort(results.begin(), results.end(),
                     [](const auto& a, const auto& b) { return place_of(a.kind) < place_of(b.kind); });
    return results;
  }

  void add_noising(const TracedFact& fact, std::span<const std::uint8_t> weights) {
    if (fact.noising_grids.empty()) return;
    auto noised = fact;
    noised.noising = true;
    add_kinds(noising_, noised, fact.noising_grids, weights);
    for (const auto& grid : fact.noising_grids) {
      if (grid.rows == 0) continue;
      auto& sums = interactions_.try_emplace(grid.kind, grid.heads).first->second;
      sums.add(fact, interaction_of(*fact.find(grid.kind), grid, fact), replicates_, weights);
    }
  }

  void add_gaps(const TracedFact& fact, std::span<const std::uint8_t> weights) {
    const auto* state = fact.find("state");
    if (state == nullptr) return;
    for (std::size_t i = 0; i < kSevered.size(); ++i) {
      const auto* severed = fact.find("state_" + std::string(kSevered[i]) + "_severed");
      if (severed == nullptr) continue;
      if (!gaps_[i]) gaps_[i].emplace();
      gaps_[i]->add(fact, gap_of(*state, *severed, fact), replicates_, weights);
    }
  }

  std::size_t replicates_;
  ClusterMeans scores_;  // high, low, total effect
  std::list<KindSums> kinds_;
  std::array<std::optional<GapSums>, kSevered.size()> gaps_;
  std::list<KindSums> noising_;
  std::map<std::string, GapSums, std::less<>> interactions_;
  std::optional<KnockoutSums> knockout_;
  ReadingSums readings_;
  NeuronCurves neurons_;
};

const KindSummary* GroupSummary::find(std::string_view kind) const {
  const auto found = std::find_if(kinds.begin(), kinds.end(), [&](const auto& each) { return each.kind == kind; });
  return found == kinds.end() ? nullptr : &*found;
}

Summary::Summary(const SummaryConfig& config)
    : config_(config), weights_(config.seed, static_cast<std::size_t>(std::max<std::int64_t>(0, config.replicates))) {
  constexpr std::int64_t kMost = 100000;
  if (config.replicates < 0 || config.replicates > kMost) {
    throw Error("--bootstrap: " + std::to_string(config.replicates) + " replicates; expected 0 to " +
                std::to_string(kMost) + ", 0 for no bootstrap");
  }
  coverage_ = std::make_unique<Coverage>();
  neurons_ = std::make_unique<NeuronSets>(static_cast<std::size_t>(config.replicates));
  overall_ = std::make_unique<Group>(static_cast<std::size_t>(config.replicates));
}

Summary::~Summary() = default;

void Summary::add(const SummaryLine& line) {
  if (line.type == SummaryLine::Type::kProbe) {
    throw Error(line.where + ": a probe's line among traces; summarise probes and traces apart");
  }
  if (line.type == SummaryLine::Type::kEdit) {
    throw Error(line.where + ": an edit's line among traces; summarise edits and traces apart");
  }
  settings_.check(line);
  if (line.type == SummaryLine::Type::kHeader) {
    coverage_->begin(line.json, line.where);
  } else {
    add_record(line);
  }
}

void Summary::add_record(const SummaryLine& line) {
  coverage_->add(line.json, line.where);
  ++counts_.records;
  const auto status = text_of(line, "status", "");
  if (status == "traced") {
    add_traced(line);
  } else if (status == "skipped") {
    ++counts_.skipped;
    // A single run gives no cause: it skips for this one only.
    ++counts_.causes[text_of(line, "cause", "other_answer")];
  } else if (status == "failed") {
    ++counts_.failed;
    ++counts_.causes[text_of(line, "cause", "unknown")];
  } else {
    refuse(line, "status " + in_quotes(status));
  }
}

void Summary::add_traced(const SummaryLine& line) {
  const auto fact = traced_fact(line);
  if (!all_numbers(fact)) {
    ++counts_.failed;
    ++counts_.causes["trace"];
    if (not_a_number_++ == 0) first_not_a_number_ = line.where;
    return;
  }
  ++counts_.traced;
  const auto weights = weights_.draw();
  overall_->add(fact, weights);
  neurons_->add(fact, relation_of_fact(line), relation_name(line), subject_text(line), weights);
  if (config_.by_relation) {
    relation_of(line, cells_of(fact)).add(fact, weights);
  }
}

Summary::Group& Summary::relation_of(const SummaryLine& line, std::size_t cells) {
  constexpr std::size_t kMostBytes = std::size_t{8} << 30U;
  const auto name = relation_name(line);
  auto& group = relations_[name];
  if (!group) {
    const auto replicates = static_cast<std::size_t>(config_.replicates);
    if (relations_.size() * (replicates + 8) * kRoles.size() * cells * sizeof(double) > kMostBytes) {
      throw Error(line.where + ": " + std::to_string(relations_.size()) + " relations with " +
                  std::to_string(replicates) + " replicates need more than 8 GiB of memory; use a smaller --bootstrap");
    }
    group = std::make_unique<Group>(replicates);
  }
  return *group;
}

void Summary::end_file(const SummaryReader& reader) {
  counts_.files.push_back(reader.label());
  coverage_->end_file();
  if (reader.torn()) {
    ++counts_.torn_lines;
    counts_.warnings.push_back(reader.label() + ": the last line is not whole and was left out: the batch is running " +
                               "or was stopped; start it again to finish it");
  }
}

SummaryResult Summary::result() {
  if (counts_.records == 0) {
    const auto where = counts_.files.empty() ? std::string("no file") : counts_.files.front();
    throw Error(where + ": no result yet; expected lines of rometrace --facts, or of rometrace --json");
  }
  auto result = counts_;
  result.config = config_;
  result.model = settings_.model();
  result.run = settings_.run();
  if (not_a_number_ > 0) {
    result.warnings.push_back(
        first_not_a_number_ + ": a score is not a number" +
        (not_a_number_ == 1 ? "" : ", as in " + std::to_string(not_a_number_ - 1) + " more lines") +
        "; counted as failed (trace)");
  }
  result.selections = coverage_->selections();
  for (auto& warning : coverage_->warnings()) result.warnings.push_back(std::move(warning));
  result.overall = overall_->result(neurons_->result(std::nullopt));
  for (const auto& [name, group] : relations_) {
    result.relations.emplace_back(name, group->result(neurons_->result(name)));
  }
  return result;
}

}  // namespace rometrace

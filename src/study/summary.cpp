#include "rometrace/study/summary.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <list>
#include <span>

#include "rometrace/error.hpp"
#include "rometrace/text/input_file.hpp"

namespace rometrace {
namespace {

using nlohmann::json;

constexpr std::int64_t kMostRecords = std::int64_t{1} << 32U;  // half a GiB of bits

/// A traced line, checked.
struct TracedFact {
  double high = 0;
  double low = 0;
  std::int64_t tokens = 0;
  std::int64_t layers = 0;
  TokenRange subject;
  std::span<const SummaryGrid> grids;
};

[[noreturn]] void refuse(const SummaryLine& line, const std::string& what) {
  throw Error(line.where + ": " + what + "; expected a line as rometrace writes it");
}

const json& member(const SummaryLine& line, const json& object, const char* name) {
  if (!object.is_object() || !object.contains(name)) refuse(line, std::string("no \"") + name + "\"");
  return object.at(name);
}

std::int64_t whole_number(const SummaryLine& line, const json& value, const char* name) {
  if (!value.is_number_integer() || value < 0 || value > (std::int64_t{1} << 40)) {
    refuse(line, std::string("\"") + name + "\" is no whole number");
  }
  return value.get<std::int64_t>();
}

/// A probability; NaN for null.
double score_of(const SummaryLine& line, const char* name) {
  const auto& value = member(line, line.json, name);
  if (value.is_null()) return std::numeric_limits<double>::quiet_NaN();
  if (!value.is_number()) refuse(line, std::string("\"") + name + "\" is no number");
  return value.get<double>();
}

TokenRange subject_of(const SummaryLine& line, std::int64_t tokens) {
  const auto& range = member(line, line.json, "subject_range");
  if (!range.is_array() || range.size() != 2) refuse(line, "\"subject_range\" is no pair of positions");
  const auto begin = whole_number(line, range[0], "subject_range"), end = whole_number(line, range[1], "subject_range");
  if (begin >= end || end > tokens)
    refuse(line, "\"subject_range\" is not within the " + std::to_string(tokens) + " tokens");
  return {static_cast<std::size_t>(begin), static_cast<std::size_t>(end)};
}

TracedFact traced_fact(const SummaryLine& line) {
  TracedFact fact;
  fact.high = score_of(line, "high_score");
  fact.low = score_of(line, "low_score");
  fact.layers = whole_number(line, member(line, member(line, line.json, "model"), "layers"), "layers");
  const auto& tokens = member(line, line.json, "tokens");
  fact.tokens = tokens.is_array() ? static_cast<std::int64_t>(tokens.size()) : 0;
  fact.subject = subject_of(line, fact.tokens);
  fact.grids = line.grids;
  if (line.grids.empty()) refuse(line, "no grids");
  for (const auto& grid : line.grids) {
    const auto name = in_quotes(grid.kind);
    if (std::count_if(line.grids.begin(), line.grids.end(), [&](const auto& g) { return g.kind == grid.kind; }) > 1) {
      refuse(line, "the grid " + name + " is there twice");
    }
    if (grid.tokens != fact.tokens || grid.layers != fact.layers) {
      refuse(line, "the grid " + name + " has " + std::to_string(grid.tokens) + " rows of " +
                       std::to_string(grid.layers) + " scores for " + std::to_string(fact.tokens) + " tokens and " +
                       std::to_string(fact.layers) + " layers");
    }
  }
  return fact;
}

bool all_numbers(const TracedFact& fact) {
  const auto is_number = [](double score) { return std::isfinite(score); };
  return is_number(fact.high) && is_number(fact.low) &&
         std::all_of(fact.grids.begin(), fact.grids.end(), [&](const SummaryGrid& grid) {
           return std::all_of(grid.scores.begin(), grid.scores.end(), is_number);
         });
}

std::optional<Bounds> bootstrap_of(ClusterMeans& means, std::size_t value) {
  return means.facts() < 2 ? std::nullopt : percentile_interval(means.replicates(value));
}

Estimate estimate(ClusterMeans& means, std::size_t value) {
  Estimate result;
  result.facts = means.facts();
  if (result.facts == 0) return result;
  result.mean = means.means()[value];
  if (result.facts < 2) return result;
  result.standard_error = means.standard_errors()[value];
  result.normal = normal_interval(*result.mean, *result.standard_error);
  result.bootstrap = bootstrap_of(means, value);
  return result;
}

Peak peak_of(ClusterMeans& effects) {
  const auto& aie = effects.means();
  const auto largest = std::max_element(aie.begin(), aie.end());
  Peak peak{largest - aie.begin(), *largest, {}, {}};
  auto peaks = effects.replicate_peaks();
  if (effects.facts() < 2 || peaks.empty()) return peak;
  std::sort(peaks.begin(), peaks.end());
  const auto same = std::count(peaks.begin(), peaks.end(), static_cast<double>(peak.layer));
  peak.share = static_cast<double>(same) / static_cast<double>(peaks.size());
  // Layers are whole: the neighbours outwards, not a layer between them.
  const auto last = static_cast<double>(peaks.size() - 1);
  const auto at = [&](double place) { return static_cast<std::int64_t>(peaks[static_cast<std::size_t>(place)]); };
  peak.layers = {at(std::floor(kLowTail * last)), at(std::ceil(kHighTail * last))};
  return peak;
}

/// Sums of one role in one kind over facts.
class RoleSums {
 public:
  RoleSums(std::size_t layers, std::size_t replicates)
      : effects_(layers, replicates), scores_(layers, 0), largest_(2, replicates) {}

  /// `rows`: the scores of the fact's tokens with the role, row-major [count, L].
  void add(std::span<const double> rows, std::int64_t count, double low, std::span<const std::uint8_t> weights) {
    const auto layers = rows.size() / static_cast<std::size_t>(count);
    score_sums_.assign(layers, 0);
    effect_sums_.assign(layers, 0);
    for (std::size_t i = 0; i < rows.size(); ++i) {
      score_sums_[i % layers] += rows[i];
      effect_sums_[i % layers] += rows[i] - low;
    }
    effects_.add(static_cast<double>(count), effect_sums_, weights);
    scores_.add(static_cast<double>(count), score_sums_, {});
    const double largest = *std::max_element(rows.begin(), rows.end());
    largest_.add(1, std::array{largest, largest - low}, weights);
  }

  RoleSummary result() {
    RoleSummary role;
    role.facts = effects_.facts();
    role.tokens = std::llround(effects_.count());
    role.score = scores_.means();
    role.aie = effects_.means();
    role.peak = peak_of(effects_);
    role.largest_score = estimate(largest_, 0);
    role.largest_effect = estimate(largest_, 1);
    if (role.facts < 2) return role;
    role.standard_error = effects_.standard_errors();
    for (std::size_t layer = 0; layer < role.aie.size(); ++layer) {
      const auto normal = normal_interval(role.aie[layer], role.standard_error[layer]);
      role.normal_low.push_back(normal.low);
      role.normal_high.push_back(normal.high);
      if (const auto bootstrap = bootstrap_of(effects_, layer)) {
        role.bootstrap_low.push_back(bootstrap->low);
        role.bootstrap_high.push_back(bootstrap->high);
      }
    }
    return role;
  }

 private:
  ClusterMeans effects_;  // [L]
  ClusterMeans scores_;   // [L]
  ClusterMeans largest_;  // score, effect
  std::vector<double> score_sums_, effect_sums_;
};

/// Sums of one kind over facts.
class KindSums {
 public:
  KindSums(const SummaryGrid& grid, std::size_t replicates)
      : kind_(grid.kind), window_(grid.window), replicates_(replicates), largest_(2, replicates) {}

  const std::string& kind() const { return kind_; }

  void add(const TracedFact& fact, const SummaryGrid& grid, std::span<const std::uint8_t> weights) {
    const double largest = *std::max_element(grid.scores.begin(), grid.scores.end());
    largest_.add(1, std::array{largest, largest - fact.low}, weights);
    // The tokens of a role stand together.
    auto begin = static_cast<std::int64_t>(fact.subject.begin);
    while (begin < fact.tokens) {
      const auto role = *role_of(begin, fact.subject, fact.tokens);
      auto end = begin + 1;
      while (end < fact.tokens && role_of(end, fact.subject, fact.tokens) == role) ++end;
      auto& sums = roles_[static_cast<std::size_t>(role)];
      if (!sums) sums.emplace(static_cast<std::size_t>(fact.layers), replicates_);
      const auto rows = std::span(grid.scores)
                            .subspan(static_cast<std::size_t>(begin * fact.layers),
                                     static_cast<std::size_t>((end - begin) * fact.layers));
      sums->add(rows, end - begin, fact.low, weights);
      begin = end;
    }
  }

  KindSummary result() {
    KindSummary summary;
    summary.kind = kind_;
    summary.window = window_;
    summary.largest_score = estimate(largest_, 0);
    summary.largest_effect = estimate(largest_, 1);
    for (std::size_t i = 0; i < kRoles.size(); ++i) {
      if (roles_[i]) summary.roles[i] = roles_[i]->result();
    }
    return summary;
  }

 private:
  std::string kind_;
  std::int64_t window_;
  std::size_t replicates_;
  ClusterMeans largest_;  // score, effect
  std::array<std::optional<RoleSums>, kRoles.size()> roles_;
};

/// The paper's order; what is not in it comes after.
int place_of(const std::string& kind) {
  return kind == "state" ? 0 : kind == "mlp" ? 1 : kind == "attn" ? 2 : 3;
}

std::string relation_name(const SummaryLine& line) {
  const auto fact = line.json.find("fact");
  if (fact == line.json.end() || !fact->is_object()) return "(none)";
  const auto relation = fact->find("relation");
  return relation != fact->end() && relation->is_string() ? relation->get<std::string>() : "(none)";
}

std::string text_of(const SummaryLine& line, const char* name, const std::string& missing) {
  const auto found = line.json.find(name);
  return found != line.json.end() && found->is_string() ? found->get<std::string>() : missing;
}

}  // namespace

/// Sums over the facts of one group.
class Summary::Group {
 public:
  explicit Group(std::size_t replicates) : replicates_(replicates), scores_(3, replicates) {}

  void add(const TracedFact& fact, std::span<const std::uint8_t> weights) {
    scores_.add(1, std::array{fact.high, fact.low, fact.high - fact.low}, weights);
    for (const auto& grid : fact.grids) {
      auto sums = std::find_if(kinds_.begin(), kinds_.end(), [&](const auto& k) { return k.kind() == grid.kind; });
      if (sums == kinds_.end()) sums = kinds_.emplace(kinds_.end(), grid, replicates_);
      sums->add(fact, grid, weights);
    }
  }

  GroupSummary result() {
    GroupSummary summary;
    summary.facts = scores_.facts();
    summary.high_score = estimate(scores_, 0);
    summary.low_score = estimate(scores_, 1);
    summary.total_effect = estimate(scores_, 2);
    for (auto& sums : kinds_) summary.kinds.push_back(sums.result());
    std::stable_sort(summary.kinds.begin(), summary.kinds.end(),
                     [](const auto& a, const auto& b) { return place_of(a.kind) < place_of(b.kind); });
    return summary;
  }

 private:
  std::size_t replicates_;
  ClusterMeans scores_;  // high, low, total effect
  std::list<KindSums> kinds_;
};

/// The facts files of a header.
struct Summary::Study {
  std::string name;               ///< of the first file, for messages
  std::vector<bool> records;      ///< those that were in a line
  std::int64_t record_count = 0;  ///< as the header says
  /// By selection. Several headers have the same one where a study was cut into shards.
  std::map<std::string, SelectionSummary> selections;
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
  overall_ = std::make_unique<Group>(static_cast<std::size_t>(config.replicates));
}

Summary::~Summary() = default;

void Summary::add(const SummaryLine& line) {
  if (line.type == SummaryLine::Type::kProbe) {
    throw Error(line.where + ": a probe's line among traces; summarise probes and traces apart");
  }
  settings_.check(line);
  if (line.type == SummaryLine::Type::kHeader) {
    add_header(line);
  } else {
    add_record(line);
  }
}

void Summary::add_header(const SummaryLine& line) {
  study_ = nullptr;
  selection_ = nullptr;
  const auto facts = line.json.find("facts");
  if (facts == line.json.end()) return;
  const auto& files = member(line, *facts, "files");
  std::string key, name;
  for (const auto& file : files) {
    key += member(line, file, "sha256").dump() + " ";
    if (name.empty() && file.contains("name") && file["name"].is_string()) name = file["name"].get<std::string>();
  }
  auto& study = studies_[key];
  if (!study) study = std::make_unique<Study>();
  study->name = name;
  study->record_count = whole_number(line, member(line, *facts, "records"), "records");
  if (study->record_count > kMostRecords) refuse(line, "more than " + std::to_string(kMostRecords) + " records");
  study_ = study.get();
  // The files' names may differ where a study was run at several places.
  json selection = *facts;
  selection.erase("files");
  auto& summary = study->selections[selection.dump()];
  summary.selected = whole_number(line, member(line, *facts, "selected"), "selected");
  if (summary.facts.is_null()) summary.facts = *facts;
  selection_ = &summary;
}

void Summary::add_record(const SummaryLine& line) {
  mark_record(line);
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

void Summary::mark_record(const SummaryLine& line) {
  if (study_ == nullptr) return;
  const auto& fact = member(line, line.json, "fact");
  const auto record = whole_number(line, member(line, fact, "record"), "record");
  if (record < 1 || record > study_->record_count) {
    refuse(line, "record " + std::to_string(record) + " of " + std::to_string(study_->record_count));
  }
  const auto index = static_cast<std::size_t>(record);
  if (study_->records.size() <= index) study_->records.resize(std::max(index + 1, 2 * study_->records.size()));
  if (study_->records[index]) {
    throw Error(line.where + ": record " + std::to_string(record) + " of " + label_of(study_->name) +
                " was in a line before; a fact counts once: leave out the file that repeats it, or put the files "
                "together with rometrace merge");
  }
  study_->records[index] = true;
  ++selection_->lines;
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
  if (config_.by_relation) {
    relation_of(line, fact.grids.size() * static_cast<std::size_t>(fact.layers)).add(fact, weights);
  }
}

Summary::Group& Summary::relation_of(const SummaryLine& line, std::size_t layers) {
  constexpr std::size_t kMostBytes = std::size_t{8} << 30U;
  const auto name = relation_name(line);
  auto& group = relations_[name];
  if (!group) {
    const auto replicates = static_cast<std::size_t>(config_.replicates);
    if (relations_.size() * (replicates + 8) * kRoles.size() * layers * sizeof(double) > kMostBytes) {
      throw Error(line.where + ": " + std::to_string(relations_.size()) + " relations with " +
                  std::to_string(replicates) + " replicates need more than 8 GiB of memory; use a smaller --bootstrap");
    }
    group = std::make_unique<Group>(replicates);
  }
  return *group;
}

void Summary::end_file(const SummaryReader& reader) {
  counts_.files.push_back(reader.label());
  study_ = nullptr;
  selection_ = nullptr;
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
  for (const auto& [key, study] : studies_) {
    for (const auto& [selection, summary] : study->selections) {
      result.selections.push_back(summary);
      if (summary.lines < summary.selected) {
        result.warnings.push_back(label_of(study->name) + ": " + std::to_string(summary.selected - summary.lines) +
                                  " of " + std::to_string(summary.selected) +
                                  " facts have no line: a batch is not finished, or a shard's file is missing");
      }
    }
  }
  result.overall = overall_->result();
  for (const auto& [name, group] : relations_) result.relations.emplace_back(name, group->result());
  return result;
}

}  // namespace rometrace

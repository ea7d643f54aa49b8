#include "rometrace/summary/edit_summary.hpp"

#include <algorithm>
#include <cmath>
#include <span>

#include "rometrace/error.hpp"
#include "rometrace/results/results_reader.hpp"
#include "rometrace/text/input_file.hpp"
#include "summary/coverage.hpp"
#include "summary/json_path.hpp"
#include "summary/traced_fact.hpp"

namespace rometrace {
namespace {

using nlohmann::json;
using Weights = std::span<const std::uint8_t>;

constexpr const char* kNoRelation = "(none)";

// The scores of a line's edit, before or after it.
CaseScores scores_of(const SummaryLine& line, const json& edit, const char* side) {
  const auto& object = member(line, member(line, edit, "scores"), side);
  CaseScores scores;
  for (std::size_t i = 0; i < kScores.size(); ++i) {
    const std::string name(to_string(kScores[i]));
    const auto& value = member(line, object, name.c_str());
    if (value.is_null()) continue;
    if (!value.is_number()) refuse(line, "\"" + name + "\" is no number");
    const double number = value.get<double>();
    if (!(number >= -1 && number <= 1)) refuse(line, "\"" + name + "\" is " + value.dump() + ", not within -1 and 1");
    scores[i] = number;
  }
  return scores;
}

// Means over facts, and their replicates.
class Means {
 public:
  explicit Means(std::size_t replicates) : replicate_sums_(replicates), replicate_counts_(replicates) {}

  void add(const CaseScores& scores, Weights weights) {
    for (std::size_t i = 0; i < kScores.size(); ++i) {
      if (!scores[i]) continue;
      auto& [facts, mean, squares] = moments_[i];
      const double step = *scores[i] - mean;
      mean += step / static_cast<double>(++facts);
      squares += step * (*scores[i] - mean);
    }
    for (std::size_t b = 0; b < weights.size(); ++b) {
      if (weights[b] == 0) continue;
      for (std::size_t i = 0; i < kScores.size(); ++i) {
        if (!scores[i]) continue;
        replicate_sums_[b][i] += weights[b] * *scores[i];
        replicate_counts_[b][i] += weights[b];
      }
    }
  }

  ScoreMeans result() const {
    ScoreMeans means;
    for (std::size_t i = 0; i < kScores.size(); ++i) {
      const auto& [facts, mean, squares] = moments_[i];
      auto& score = means.scores[i];
      score.facts = facts;
      if (facts == 0) continue;
      score.mean = mean;
      score.deviation = std::sqrt(squares / static_cast<double>(facts));
      if (facts < 2) continue;
      std::vector<double> replicates;
      for (std::size_t b = 0; b < replicate_sums_.size(); ++b) {
        if (const auto value = replicate(b, i)) replicates.push_back(*value);
      }
      score.bootstrap = percentile_interval(std::move(replicates));
    }
    const auto &efficacy = means.of(Score::kES), &paraphrase = means.of(Score::kPS), &neighbour = means.of(Score::kNS);
    if (!efficacy.mean || !paraphrase.mean || !neighbour.mean) return means;
    means.overall = overall_score(*efficacy.mean, *paraphrase.mean, *neighbour.mean);
    if (std::min({efficacy.facts, paraphrase.facts, neighbour.facts}) < 2) return means;
    std::vector<double> replicates;
    for (std::size_t b = 0; b < replicate_sums_.size(); ++b) {
      if (const auto value = overall(b)) replicates.push_back(*value);
    }
    means.overall_bootstrap = percentile_interval(std::move(replicates));
    return means;
  }

  /// S of a replicate; nothing where it has no fact of one of its scores.
  std::optional<double> overall(std::size_t b) const {
    const auto of = [&](Score score) { return replicate(b, static_cast<std::size_t>(score)); };
    const auto efficacy = of(Score::kES), paraphrase = of(Score::kPS), neighbour = of(Score::kNS);
    if (!efficacy || !paraphrase || !neighbour) return std::nullopt;
    return overall_score(*efficacy, *paraphrase, *neighbour);
  }

 private:
  struct Moments {
    std::int64_t facts = 0;
    double mean = 0, squares = 0;  // of the deviations from the mean
  };

  std::optional<double> replicate(std::size_t b, std::size_t score) const {
    if (replicate_counts_[b][score] == 0) return std::nullopt;
    return replicate_sums_[b][score] / replicate_counts_[b][score];
  }

  std::array<Moments, kScores.size()> moments_;
  std::vector<std::array<double, kScores.size()>> replicate_sums_, replicate_counts_;
};

// The facts of a group, edited in the same layers.
struct Group {
  explicit Group(std::size_t replicates) : before(replicates), after(replicates) {}

  void add(const SummaryLine& line, const json& edit, Weights weights) {
    if (edit.is_object() && edit.contains("cause")) {
      ++counts.refused;
      return;
    }
    const auto scores = scores_of(line, edit, "after");
    before.add(scores_of(line, edit, "before"), weights);
    after.add(scores, weights);
    ++counts.facts;
    const auto& verdict = member(line, edit, "verdict");
    const auto& outcome = member(line, verdict, "outcome");
    const auto& leaks = member(line, verdict, "leaks");
    if (!leaks.is_array()) refuse(line, "\"leaks\" is no list");
    auto* const counter = outcome == to_string(EditOutcome::kTook)             ? &counts.took
                          : outcome == to_string(EditOutcome::kBehindPrefixes) ? &counts.behind_prefixes
                          : outcome == to_string(EditOutcome::kNoEffect)       ? &counts.no_effect
                                                                               : nullptr;
    if (counter == nullptr) refuse(line, "\"outcome\" is " + one_line(outcome.dump()));
    ++*counter;
    counts.leaks += leaks.empty() ? 0 : 1;
    counts.with_neighbours += score_of(scores, Score::kNS) ? 1 : 0;
  }

  EditGroupSummary result(const std::optional<std::vector<std::int64_t>>& layers) const {
    auto summary = counts;
    summary.layers = layers;
    summary.before = before.result();
    summary.after = after.result();
    return summary;
  }

  EditGroupSummary counts;
  Means before, after;
};

// The place of the largest of `values` as a layer, with the share and the range of `peaks`, those of replicates.
Peak peak_of(const std::vector<double>& values, std::vector<double> peaks) {
  Peak peak;
  const auto best = std::max_element(values.begin(), values.end());
  peak.layer = best - values.begin();
  peak.aie = *best;
  if (peaks.size() < 2) return peak;
  const auto same = std::count(peaks.begin(), peaks.end(), static_cast<double>(peak.layer));
  peak.share = static_cast<double>(same) / static_cast<double>(peaks.size());
  std::sort(peaks.begin(), peaks.end());
  const auto left_out = static_cast<std::size_t>(kLowTail * static_cast<double>(peaks.size()));
  peak.layers = {static_cast<std::int64_t>(peaks[left_out]),
                 static_cast<std::int64_t>(peaks[peaks.size() - 1 - left_out])};
  return peak;
}

}  // namespace

struct EditSummary::Groups {
  std::vector<std::optional<std::vector<std::int64_t>>> layers;
  std::vector<Group> groups;

  Groups(const std::vector<std::optional<std::vector<std::int64_t>>>& of_each, std::size_t replicates)
      : layers(of_each), groups(of_each.size(), Group(replicates)) {}

  void add(const SummaryLine& line, const json& edits, Weights weights) {
    for (std::size_t i = 0; i < groups.size(); ++i) groups[i].add(line, edits[i], weights);
  }

  std::vector<EditGroupSummary> result() const {
    std::vector<EditGroupSummary> summaries;
    for (std::size_t i = 0; i < groups.size(); ++i) summaries.push_back(groups[i].result(layers[i]));
    return summaries;
  }

  /// Of edits in a layer each; nothing where S is missing in one.
  std::optional<Peak> best(std::size_t replicates) const {
    if (groups.size() < 2) return std::nullopt;
    std::vector<double> values, places;
    for (std::size_t i = 0; i < groups.size(); ++i) {
      const auto overall = groups[i].after.result().overall;
      if (!overall || !layers[i] || layers[i]->size() != 1) return std::nullopt;
      values.push_back(*overall);
    }
    for (std::size_t b = 0; b < replicates; ++b) {
      std::vector<double> drawn;
      for (const auto& group : groups) {
        if (const auto value = group.after.overall(b)) drawn.push_back(*value);
      }
      if (drawn.size() < groups.size()) continue;
      places.push_back(static_cast<double>(std::max_element(drawn.begin(), drawn.end()) - drawn.begin()));
    }
    auto peak = peak_of(values, std::move(places));
    const auto layer_at = [&](std::int64_t place) { return layers[static_cast<std::size_t>(place)]->front(); };
    peak.layer = layer_at(peak.layer);
    if (peak.layers) peak.layers = {layer_at(peak.layers->first), layer_at(peak.layers->second)};
    return peak;
  }
};

class EditSummary::Curves {
 public:
  Curves(const SummaryLine& line, const json& tracing, std::size_t replicates)
      : layers_(member(line, tracing, "mlp").size()), mlp_(layers_, replicates), state_(layers_, replicates) {
    if (layers_ == 0) refuse(line, "\"mlp\" of the tracing is no list of numbers");
  }

  void add(const SummaryLine& line, const json& tracing, Weights weights) {
    const auto &mlp = member(line, tracing, "mlp"), &state = member(line, tracing, "state");
    const auto& low = member(line, tracing, "low_score");
    const auto mlp_effects = effects(line, mlp, low), state_effects = effects(line, state, low);
    if (mlp_effects.empty() || state_effects.empty()) return;
    mlp_.add(1, mlp_effects, weights);
    state_.add(1, state_effects, weights);
  }

  TracingSummary result() {
    TracingSummary summary;
    summary.facts = mlp_.facts();
    summary.mlp = curve(mlp_);
    summary.state = curve(state_);
    return summary;
  }

 private:
  /// Empty where a value is no number: the noise took the output beyond numbers.
  std::vector<double> effects(const SummaryLine& line, const json& scores, const json& low) const {
    if (!scores.is_array() || scores.size() != layers_) {
      refuse(line, "the tracing has no list of " + std::to_string(layers_) + " scores");
    }
    std::vector<double> effects;
    for (const auto& score : scores) {
      if (score.is_null() || low.is_null()) return {};
      if (!score.is_number() || !low.is_number()) refuse(line, "a score of the tracing is no number");
      effects.push_back(score.get<double>() - low.get<double>());
    }
    return effects;
  }

  static TracingSummary::Curve curve(ClusterMeans& means) {
    TracingSummary::Curve curve;
    if (means.facts() == 0) return curve;
    curve.effect = means.means();
    curve.peak = peak_of(curve.effect, means.facts() < 2 ? std::vector<double>() : means.replicate_peaks());
    if (means.facts() < 2) return curve;
    for (std::size_t layer = 0; layer < curve.effect.size(); ++layer) {
      const auto bounds = percentile_interval(means.replicates(layer));
      if (!bounds) continue;
      curve.bootstrap_low.push_back(bounds->low);
      curve.bootstrap_high.push_back(bounds->high);
    }
    return curve;
  }

  std::size_t layers_;
  ClusterMeans mlp_, state_;
};

EditSummary::EditSummary(const SummaryConfig& config)
    : weights_(config.seed, static_cast<std::size_t>(std::max<std::int64_t>(0, config.replicates))),
      coverage_(std::make_unique<Coverage>()) {
  counts_.config = config;
}

EditSummary::~EditSummary() = default;

void EditSummary::add_header(const SummaryLine& line) {
  const auto text = line.json.dump();
  const auto header = parse_results_header(text, line.where, "expected a file that rometrace edit --each wrote");
  if (header.command != "edit") {
    throw Error(line.where + ": results of " + in_quotes(header.command) +
                " among those of edits; summarise them apart");
  }
  coverage_->begin(line.json, line.where);
  has_header_ = true;
  if (!header_.empty()) {
    const auto first = parse_results_header(header_, header_where_, "");
    auto found = header_differences(header, first, ShardsMay::kDiffer);
    // Other facts may be added to the same study.
    std::erase_if(found, [](const auto& difference) { return difference.path.starts_with("facts."); });
    if (found.empty()) return;
    throw Error(line.where + ": " + found.front().path + " is " + found.front().there + "; expected " +
                found.front().here + " as in " + header_where_ + "; summarise results of different settings apart");
  }
  header_ = text;
  header_where_ = line.where;
  counts_.model = member(line, line.json, "model");
  counts_.run = member(line, line.json, "run");
  counts_.edit = member(line, line.json, "edit");
  const auto& layers = member(line, counts_.edit, "layers");
  std::vector<std::optional<std::vector<std::int64_t>>> of_each;
  if (layers == "trace") {
    of_each.emplace_back();
  } else {
    if (!layers.is_array() || layers.empty()) refuse(line, "\"layers\" of the edits is no list");
    for (const auto& each : layers) {
      if (!each.is_array() || each.empty()) refuse(line, "\"layers\" of an edit is no list");
      auto& list = of_each.emplace_back(std::in_place).value();
      for (const auto& layer : each) list.push_back(whole_number(line, layer, "layers"));
    }
  }
  overall_ = std::make_unique<Groups>(of_each, static_cast<std::size_t>(counts_.config.replicates));
}

void EditSummary::add(const SummaryLine& line) {
  if (line.type == SummaryLine::Type::kHeader) return add_header(line);
  if (line.type != SummaryLine::Type::kEdit) {
    throw Error(line.where + ": no line of an edit among those of edits; summarise them apart");
  }
  if (!has_header_) {
    throw Error(line.where + ": no header before it; expected a whole file that rometrace edit --each wrote");
  }
  coverage_->add(line.json, line.where);
  const auto& status = member(line, line.json, "status");
  if (status != "edited" && status != "skipped" && status != "failed") {
    refuse(line, "\"status\" is " + one_line(status.dump()));
  }
  ++counts_.records;
  ++counts_.status[status.get<std::string>()];
  if (status == "edited") return add_edited(line);
  const auto& cause = member(line, line.json, "cause");
  if (!cause.is_string()) refuse(line, "\"cause\" is no text");
  ++counts_.causes[cause.get<std::string>()];
}

void EditSummary::add_edited(const SummaryLine& line) {
  const auto& edits = member(line, line.json, "edits");
  if (!edits.is_array() || edits.size() != overall_->groups.size()) {
    refuse(line, "\"edits\" is no list of " + std::to_string(overall_->groups.size()) + ", as the header has layers");
  }
  const auto weights = weights_.draw();
  overall_->add(line, edits, weights);
  if (counts_.config.by_relation) {
    const auto* relation = value_at(line.json, "fact.relation");
    const auto name = relation != nullptr && relation->is_string() ? relation->get<std::string>() : kNoRelation;
    auto& groups = relations_[name];
    if (!groups) groups = std::make_unique<Groups>(overall_->layers, weights.size());
    groups->add(line, edits, weights);
  }
  const auto tracing = line.json.find("tracing");
  if (tracing == line.json.end()) return;
  if (!curves_) curves_ = std::make_unique<Curves>(line, *tracing, weights.size());
  curves_->add(line, *tracing, weights);
}

void EditSummary::end_file(const SummaryReader& reader) {
  counts_.files.push_back(reader.label());
  has_header_ = false;
  coverage_->end_file();
  if (!reader.torn()) return;
  ++counts_.torn_lines;
  counts_.warnings.push_back(reader.label() + ": an unfinished line at the end was left out");
}

EditSummaryResult EditSummary::result() {
  if (!overall_) throw Error("no results of edits in the files");
  auto result = counts_;
  result.selections = coverage_->selections();
  const auto warnings = coverage_->warnings();
  result.warnings.insert(result.warnings.end(), warnings.begin(), warnings.end());
  result.layers = overall_->result();
  result.best = overall_->best(static_cast<std::size_t>(result.config.replicates));
  for (const auto& [name, groups] : relations_) result.relations.emplace_back(name, groups->result());
  if (curves_) {
    result.tracing = curves_->result();
    const auto header = json::parse(header_);
    result.tracing->window = header.value("window", std::int64_t{0});
  }
  return result;
}

}  // namespace rometrace

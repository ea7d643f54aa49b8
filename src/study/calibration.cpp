#include "rometrace/study/calibration.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <utility>

#include "rometrace/error.hpp"
#include "rometrace/study/hardly_lowered.hpp"

namespace rometrace {
namespace {

KindPeak kind_peak(const KindSummary& kind) {
  const auto& role = kind.roles[static_cast<std::size_t>(Role::kLastSubject)];
  KindPeak result;
  result.kind = kind.kind;
  result.window = kind.window;
  result.aie.facts = role.facts;
  if (!role.peak || !(role.peak->aie > 0)) return result;
  result.peak = role.peak;
  const auto& head = role.peak->head;
  const auto place = static_cast<std::size_t>(head ? role.peak->layer * kind.heads + *head : role.peak->layer);
  result.aie.mean = role.peak->aie;
  if (!role.standard_error.empty()) {
    result.aie.standard_error = role.standard_error[place];
    result.aie.normal = Bounds{role.normal_low[place], role.normal_high[place]};
  }
  if (!role.bootstrap_low.empty()) {
    result.aie.bootstrap = Bounds{role.bootstrap_low[place], role.bootstrap_high[place]};
  }
  return result;
}

FactorResult factor_result(double factor, const GroupSummary& group) {
  FactorResult result;
  result.factor = factor;
  result.facts = group.facts;
  result.high_score = group.high_score;
  result.low_score = group.low_score;
  result.total_effect = group.total_effect;
  if (group.facts > 0 && *group.high_score.mean > 0) result.lost = *group.total_effect.mean / *group.high_score.mean;
  for (const auto& kind : group.kinds) result.kinds.push_back(kind_peak(kind));
  return result;
}

const KindPeak* find(const FactorResult& factor, std::string_view kind) {
  const auto found =
      std::find_if(factor.kinds.begin(), factor.kinds.end(), [&](const auto& each) { return each.kind == kind; });
  return found == factor.kinds.end() ? nullptr : &*found;
}

bool same_peak(const KindPeak& kind, const FactorResult& neighbour) {
  const auto* other = find(neighbour, kind.kind);
  if (!kind.peak || other == nullptr || !other->peak) return false;
  return std::abs(kind.peak->layer - other->peak->layer) <= kStableLayers;
}

/// The next larger one; of the largest the one before.
std::size_t neighbour_of(std::size_t factor, std::size_t factors) {
  return factor + 1 < factors ? factor + 1 : factor - 1;
}

bool is_stable(const FactorResult& factor) {
  return !factor.kinds.empty() &&
         std::all_of(factor.kinds.begin(), factor.kinds.end(), [](const auto& kind) { return kind.stable == true; });
}

void add_word(std::string& list, const std::string& word) {
  list += (list.empty() ? "" : ", ") + word;
}

const char* const kEnoughWords = "at least 90 % of the total effect of";

std::string reason_for(const std::vector<FactorResult>& factors, std::size_t chosen) {
  const auto name = [&](std::size_t i) { return "factor " + factor_text(factors[i].factor); };
  const auto last = factors.size() - 1;
  const auto peaks =
      " and whose peak layers lie within one layer of those of " + name(neighbour_of(chosen, factors.size()));
  if (chosen < last) {
    return name(chosen) + " is the smallest that takes away " + kEnoughWords + " " + name(last) + ", the largest," +
           peaks;
  }
  const bool grows = !factors[last - 1].strong_enough;
  return name(chosen) + ", the largest, is the only one that takes away at least 90 % of its total effect" + peaks +
         (grows ? "; the effect still grows with the factor, so larger ones are worth trying" : "");
}

std::string reason_against(const std::vector<FactorResult>& factors) {
  const auto& last = factors.back();
  const auto largest = "factor " + factor_text(last.factor);
  if (!last.total_effect.mean) {
    return last.facts == 0 && factors.size() > 1 && factors.front().facts > 0
               ? "with " + largest + " no fact's scores are numbers"
               : "no fact was traced";
  }
  if (!(*last.total_effect.mean > 0)) {
    return "not even " + largest + " takes away any of the answer's probability on average";
  }
  if (factors.size() == 1) {
    return "peak layers are compared between neighbouring factors, and there is only one; expected two or more";
  }
  std::string strong, without_peak, moving;
  for (const auto& factor : factors) {
    if (factor.strong_enough) add_word(strong, factor_text(factor.factor));
  }
  for (const auto& kind : last.kinds) {
    bool peaks = false, moves = false;
    for (const auto& factor : factors) {
      if (!factor.strong_enough) continue;
      const auto* here = find(factor, kind.kind);
      peaks = peaks || (here != nullptr && here->peak);
      moves = moves || here == nullptr || here->stable != true;
    }
    if (!peaks) {
      add_word(without_peak, kind.kind);
    } else if (moves) {
      add_word(moving, kind.kind);
    }
  }
  if (!without_peak.empty()) {
    return "restored at the last subject token, " + without_peak +
           " brings nothing back on average, so there is no peak to compare";
  }
  return "of the factors that take away " + std::string(kEnoughWords) + " " + largest + ", the largest (" + strong +
         "), none has all its peak layers within one layer of its neighbour's (" + moving + ")";
}

bool is_number(const SummaryLine& line, const char* name) {
  const auto found = line.json.find(name);
  return found != line.json.end() && found->is_number();
}

/// Of a traced line that counts, see Summary.
bool corruption_is_weak(const SummaryLine& line) {
  for (const auto& grid : line.grids) {
    if (!std::all_of(grid.scores.begin(), grid.scores.end(), [](double score) { return std::isfinite(score); })) {
      return false;
    }
  }
  if (line.json.value("status", "") != "traced" || !is_number(line, "high_score") || !is_number(line, "low_score")) {
    return false;
  }
  const double error = is_number(line, "low_standard_error") ? line.json["low_standard_error"].get<double>() : 0;
  return hardly_lowered(line.json["high_score"].get<double>(), line.json["low_score"].get<double>(), error);
}

}  // namespace

std::string factor_text(double factor) {
  std::array<char, 32> digits{};
  const auto end = std::to_chars(digits.data(), digits.data() + digits.size(), factor).ptr;
  return {digits.data(), end};
}

std::string_view recommendation_rule() {
  return "the smallest factor that (1) takes away at least 90 % of the mean total effect that the largest factor takes "
         "and (2) whose peak layer, of every kind, is within one layer of the next larger factor's (the largest factor "
         "is compared with the one before); a peak is the layer where the average indirect effect at the last subject "
         "token is largest, and above 0; no factor is recommended where none fulfils both";
}

Recommendation recommend(std::vector<FactorResult>& factors) {
  if (factors.empty()) return {std::nullopt, "no factor was tried"};
  const auto largest = factors.back().total_effect.mean.value_or(0);
  std::optional<std::size_t> chosen;
  for (std::size_t i = 0; i < factors.size(); ++i) {
    auto& factor = factors[i];
    const auto& effect = factor.total_effect.mean;
    factor.strong_enough = largest > 0 && effect && *effect >= kEnoughEffect * largest;
    for (auto& kind : factor.kinds) {
      kind.stable.reset();
      if (factors.size() > 1) kind.stable = same_peak(kind, factors[neighbour_of(i, factors.size())]);
    }
    if (!chosen && factor.strong_enough && is_stable(factor)) chosen = i;
  }
  if (chosen) return {factors[*chosen].factor, reason_for(factors, *chosen)};
  return {std::nullopt, reason_against(factors)};
}

Calibration::Calibration(const std::vector<double>& factors, const SummaryConfig& config) : config_(config) {
  if (factors.empty()) throw Error("no noise factor; expected one or more, such as 1,3,5");
  for (const auto factor : factors) {
    if (!(factor > 0) || !std::isfinite(factor)) {
      throw Error("noise factor " + factor_text(factor) + "; expected a number above 0");
    }
    if (!factors_.empty() && factor <= factors_.back().factor) {
      throw Error("noise factor " + factor_text(factor) + " after " + factor_text(factors_.back().factor) +
                  "; expected ascending ones");
    }
    factors_.push_back({factor, std::make_unique<Summary>(config), 0, 0});
  }
}

void Calibration::add(std::size_t factor, const SummaryLine& line) {
  auto& sums = factors_.at(factor);
  sums.summary->add(line);
  ++sums.lines;
  sums.hardly_lowered += corruption_is_weak(line) ? 1 : 0;
}

CalibrationResult Calibration::result() {
  CalibrationResult result;
  result.config = config_;
  for (auto& sums : factors_) {
    SummaryResult summary;
    if (sums.lines > 0) summary = sums.summary->result();
    auto factor = factor_result(sums.factor, summary.overall);
    factor.hardly_lowered = sums.hardly_lowered;
    if (result.factors.empty()) {
      result.records = summary.records;
      result.traced = summary.traced;
      result.skipped = summary.skipped;
      result.failed = summary.failed;
      result.causes = summary.causes;
    } else if (factor.facts != result.traced) {
      result.warnings.push_back("factor " + factor_text(factor.factor) + ": averages over " +
                                std::to_string(factor.facts) + " facts, not " + std::to_string(result.traced) +
                                ": the scores of the others are not numbers there");
    }
    result.factors.push_back(std::move(factor));
  }
  result.recommendation = recommend(result.factors);
  return result;
}

}  // namespace rometrace

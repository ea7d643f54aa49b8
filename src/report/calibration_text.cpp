#include "rometrace/report/calibration_text.hpp"

#include <algorithm>
#include <cmath>
#include <string_view>

#include "report/display_text.hpp"
#include "report/edits_text.hpp"
#include "report/finding.hpp"
#include "report/palette.hpp"
#include "report/table_text.hpp"

namespace rometrace {
namespace {

std::string whole_percent(double part) {
  return std::to_string(std::lround(100 * part));
}

/// With kNoBreak between number and sign, for wrap().
std::string unbroken_percent(std::string text) {
  for (auto at = text.find(" %"); at != std::string::npos; at = text.find(" %", at)) text[at] = kNoBreak;
  return text;
}

class CalibrationText {
 public:
  CalibrationText(const CalibrationRecord& calibration, const TerminalStyle& style)
      : calibration_(calibration), result_(calibration.result), style_(style) {}

  std::string render() const {
    auto text = counts() + settings() + "\n";
    for (const auto& warning : result_.warnings) text += sentence("Warning: " + shown(warning));
    if (!result_.warnings.empty()) text += "\n";
    if (result_.traced > 0) {
      text += effects() + "\n";
      text += sentence("Where the average indirect effect (AIE) at the last subject token peaks") + "\n";
      for (const auto& kind : result_.factors.front().kinds) text += peaks(kind) + "\n";
    }
    return text + sentence(unbroken_percent(recommendation_text(result_.recommendation)) + ".");
  }

 private:
  std::string sentence(const std::string& text) const { return wrap(text, style_.columns, kSentenceIndent); }

  std::string shown(std::string_view text) const { return display(text, {.unicode = style_.unicode}).text; }

  std::string heading(const std::string& text) const { return style_.color ? kBold + text + kResetColor : text; }

  std::string counts() const {
    std::string files;
    for (const auto& source : calibration_.batch.sources) files += (files.empty() ? "" : ", ") + shown(source.name);
    auto text = std::to_string(result_.records) + " facts of " + files + ": " + std::to_string(result_.traced) +
                " traced, " + std::to_string(result_.skipped) + " skipped, " + std::to_string(result_.failed) +
                " failed";
    std::string causes;
    for (const auto& [cause, count] : result_.causes) {
      causes += (causes.empty() ? "" : ", ") + shown(cause) + kNoBreak + std::to_string(count);
    }
    return sentence(text + (causes.empty() ? "" : " (" + causes + ")"));
  }

  std::string settings() const {
    const auto& batch = calibration_.batch;
    const auto& trace = batch.options.trace;
    const auto edits = edits_text(to_json(batch.model));
    return sentence("model " + shown(batch.model.name) + (edits.empty() ? "" : " (" + edits + ")") + ", draws " +
                    std::to_string(trace.samples) + ", seed " + std::to_string(trace.corruption.seed) + ", " +
                    batch.run.dtype + ", sigma = factor x " + probability(calibration_.subjects_std) +
                    " (standard deviation of the subjects' embeddings)");
  }

  std::string effects() const {
    auto text =
        sentence("Probability of the answer in percent, mean over " + std::to_string(result_.traced) +
                 " facts, with 95" + kNoBreak + "% interval over facts (" + interval_words(result_.config) + ")");
    const auto& clean = result_.factors.front().high_score;
    text += "clean: " + percent(clean.mean.value_or(0)) + "  " + interval(interval_of(clean));
    text = trimmed(std::move(text));
    text += effect_row("factor", "noised", "95 % interval", "effect", "95 % interval", "lost", "of max", "hardly");
    for (const auto& factor : result_.factors) {
      if (factor.facts == 0) {
        text += effect_row(factor_text(factor.factor), "", "", "", "", "", "", "");
        continue;
      }
      text += effect_row(factor_text(factor.factor), percent(*factor.low_score.mean),
                         interval(interval_of(factor.low_score)), percent(*factor.total_effect.mean),
                         interval(interval_of(factor.total_effect)), factor.lost ? whole_percent(*factor.lost) : "",
                         of_largest(factor),
                         whole_percent(static_cast<double>(factor.hardly_lowered) / static_cast<double>(factor.facts)));
    }
    return text + sentence(
                      "lost: part of the answer that the noise takes away; of max: its effect in that of the "
                      "largest factor; hardly: facts whose answer it hardly lowers; all in" +
                      std::string(1, kNoBreak) + "%");
  }

  std::string of_largest(const FactorResult& factor) const {
    const auto& largest = result_.factors.back().total_effect.mean;
    return largest && *largest > 0 ? whole_percent(*factor.total_effect.mean / *largest) : "";
  }

  std::string peaks(const KindPeak& kind) const {
    auto text = heading(shown(kind.kind)) + ": " + std::string(words_for_kind(kind.kind)) + " restored" +
                layers_of(kind.window) + "\n";
    text += peak_row("factor", "facts", "AIE %", "95 % interval", "peak layer", "replicates", "layers", "stable");
    for (const auto& factor : result_.factors) {
      const auto found = std::find_if(factor.kinds.begin(), factor.kinds.end(),
                                      [&](const auto& each) { return each.kind == kind.kind; });
      if (found != factor.kinds.end()) text += peak_row(factor_text(factor.factor), *found);
    }
    return text;
  }

  static std::string peak_row(const std::string& factor, const KindPeak& kind) {
    const std::string stable = !kind.stable ? "" : *kind.stable ? "yes" : "no";
    const auto facts = std::to_string(kind.aie.facts);
    if (!kind.peak) return peak_row(factor, facts, "", "", "none", "", "", stable);
    const auto& peak = *kind.peak;
    return peak_row(factor, facts, percent(peak.aie), interval(interval_of(kind.aie)),
                    std::to_string(peak.layer) + (peak.head ? "." + std::to_string(*peak.head) : ""),
                    peak.share ? whole_percent(*peak.share) + " %" : "",
                    peak.layers ? std::to_string(peak.layers->first) + "-" + std::to_string(peak.layers->second) : "",
                    stable);
  }

  static std::string effect_row(const std::string& factor, const std::string& low, const std::string& low_bounds,
                                const std::string& effect, const std::string& effect_bounds, const std::string& lost,
                                const std::string& of_largest, const std::string& hardly) {
    return trimmed(right(factor, 6) + right(low, 8) + "  " + left(low_bounds, 16) + right(effect, 8) + "  " +
                   left(effect_bounds, 16) + right(lost, 6) + right(of_largest, 8) + right(hardly, 7));
  }

  static std::string peak_row(const std::string& factor, const std::string& facts, const std::string& aie,
                              const std::string& bounds, const std::string& layer, const std::string& share,
                              const std::string& layers, const std::string& stable) {
    return trimmed(right(factor, 6) + right(facts, 8) + right(aie, 8) + "  " + left(bounds, 16) + right(layer, 12) +
                   right(share, 12) + right(layers, 8) + right(stable, 7));
  }

  const CalibrationRecord& calibration_;
  const CalibrationResult& result_;
  TerminalStyle style_;
};

}  // namespace

std::string recommendation_text(const Recommendation& recommendation) {
  if (!recommendation.factor) return "No factor is recommended: " + recommendation.reason;
  return "Recommended: --noise s" + factor_text(*recommendation.factor) + ", as " + recommendation.reason;
}

std::string render_calibration(const CalibrationRecord& calibration, const TerminalStyle& style) {
  auto usable = style;
  usable.columns = std::max(kNarrowestText, style.columns);
  return CalibrationText(calibration, usable).render();
}

}  // namespace rometrace

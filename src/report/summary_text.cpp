#include "rometrace/report/summary_text.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <string_view>
#include <vector>

#include "report/display_text.hpp"
#include "report/finding.hpp"
#include "report/palette.hpp"

namespace rometrace {
namespace {

constexpr int kNarrowest = 20;
constexpr int kIndent = 2;

std::string_view words_for(Role role) {
  constexpr std::array<std::string_view, kRoles.size()> kWords = {"first subject token", "middle subject tokens",
                                                                  "last subject token",  "first token after it",
                                                                  "further tokens",      "last token"};
  return kWords[static_cast<std::size_t>(role)];
}

/// A fraction in percent with two decimals, without the sign: the heads of tables have it.
std::string percent(double value) {
  std::array<char, 64> digits{};
  const auto end =
      std::to_chars(digits.data(), digits.data() + digits.size(), 100 * value, std::chars_format::fixed, 2).ptr;
  const std::string text(digits.data(), end);
  return text == "-0.00" ? "0.00" : text;
}

std::string right(const std::string& text, int columns) {
  const int missing = columns - columns_of(text);
  return std::string(static_cast<std::size_t>(std::max(0, missing)), ' ') + text;
}

std::string left(const std::string& text, int columns) {
  const int missing = columns - columns_of(text);
  return text + std::string(static_cast<std::size_t>(std::max(0, missing)), ' ');
}

std::string interval(const std::optional<Bounds>& value) {
  constexpr int kNumber = 6;
  return value ? "[" + right(percent(value->low), kNumber) + ", " + right(percent(value->high), kNumber) + "]" : "";
}

/// The bootstrap's; the normal one where there is none.
std::optional<Bounds> interval_of(const Estimate& estimate) {
  return estimate.bootstrap ? estimate.bootstrap : estimate.normal;
}

std::optional<Bounds> interval_at_peak(const RoleSummary& role) {
  const auto layer = static_cast<std::size_t>(role.peak->layer);
  if (!role.bootstrap_low.empty()) return Bounds{role.bootstrap_low[layer], role.bootstrap_high[layer]};
  if (!role.normal_low.empty()) return Bounds{role.normal_low[layer], role.normal_high[layer]};
  return std::nullopt;
}

std::string trimmed(std::string line) {
  line.erase(line.find_last_not_of(' ') + 1);
  return line + "\n";
}

class SummaryText {
 public:
  SummaryText(const SummaryResult& summary, const TerminalStyle& style) : summary_(summary), style_(style) {}

  std::string render() const {
    auto text = counts() + settings() + "\n";
    for (const auto& warning : summary_.warnings) text += sentence("Warning: " + shown(warning));
    if (!summary_.warnings.empty()) text += "\n";
    if (summary_.overall.facts == 0) return text + sentence("No fact was traced, so there is nothing to average.");
    text += totals() + "\n";
    for (const auto& kind : summary_.overall.kinds) text += table(kind) + "\n";
    if (!summary_.relations.empty()) text += relations() + "\n";
    for (const auto& kind : summary_.overall.kinds) text += finding(kind);
    return text;
  }

 private:
  std::string sentence(const std::string& text) const { return wrap(text, style_.columns, kIndent); }

  std::string shown(std::string_view text) const { return display(text, {.unicode = style_.unicode}).text; }

  std::string text_of(const nlohmann::ordered_json& value) const {
    return shown(value.is_string() ? value.get<std::string>() : value.dump());
  }

  std::string heading(const std::string& text) const { return style_.color ? kBold + text + kResetColor : text; }

  std::string counts() const {
    std::string files;
    for (const auto& file : summary_.files) files += (files.empty() ? "" : ", ") + shown(file);
    auto text = sentence(std::to_string(summary_.records) + " facts in " + files + ": " +
                         std::to_string(summary_.traced) + " traced, " + std::to_string(summary_.skipped) +
                         " skipped, " + std::to_string(summary_.failed) + " failed");
    std::string causes;
    for (const auto& [cause, count] : summary_.causes) {
      causes += (causes.empty() ? "" : ", ") + shown(cause) + kNoBreak + std::to_string(count);
    }
    return causes.empty() ? text : text + sentence("not traced, by cause: " + causes);
  }

  std::string settings() const {
    const auto& run = summary_.run;
    std::string text;
    if (!summary_.model.is_null() && summary_.model.contains("name")) {
      text = "model " + text_of(summary_.model["name"]) + ", ";
    }
    return sentence(text + "noise " + text_of(run["noise"]["rule"]) + " (sigma" + kNoBreak +
                    text_of(run["noise"]["sigma"]) + "), draws " + text_of(run["samples"]) + ", seed " +
                    text_of(run["seed"]) + ", " + text_of(run["dtype"]));
  }

  std::string totals() const {
    const auto& group = summary_.overall;
    const auto replicates = summary_.config.replicates;
    const std::string how =
        replicates > 0 ? "bootstrap, " + std::to_string(replicates) + " replicates" : std::string("normal");
    auto text = sentence("Probability of the answer in percent, mean over " + std::to_string(group.facts) +
                         " facts, with 95" + kNoBreak + "% interval over facts (" + how + ")");
    return text + total("clean", group.high_score) + total("subject corrupted", group.low_score) +
           total("total effect (ATE)", group.total_effect);
  }

  static std::string total(const std::string& name, const Estimate& estimate) {
    return trimmed("  " + left(name, 22) + right(percent(*estimate.mean), 7) + "  " + interval(interval_of(estimate)));
  }

  std::string table(const KindSummary& kind) const {
    const std::string what = kind.kind == "state"  ? "the block's output"
                             : kind.kind == "mlp"  ? "the MLP's output"
                             : kind.kind == "attn" ? "the attention's output"
                                                   : "its output";
    auto text =
        heading(shown(kind.kind)) + ": " + what + " restored" +
        (kind.window > 1 ? " in " + std::to_string(kind.window) + " layers around each layer" : " at one layer") + "\n";
    text += row("", "facts", "AIE %", "95 % interval", "peak layer", "replicates");
    for (const auto role : kRoles) text += role_row(role, kind.roles[static_cast<std::size_t>(role)]);
    return text;
  }

  static std::string row(const std::string& name, const std::string& facts, const std::string& aie,
                         const std::string& bounds, const std::string& layer, const std::string& share) {
    return trimmed("  " + left(name, 21) + right(facts, 7) + right(aie, 8) + "  " + left(bounds, 16) + right(layer, 5) +
                   (share.empty() ? "" : "  " + share));
  }

  static std::string role_row(Role role, const RoleSummary& summary) {
    const std::string name(words_for(role));
    if (!summary.peak) return row(name, "0", "", "", "", "");
    const auto& peak = *summary.peak;
    std::string share;
    if (peak.share) {
      share = right(std::to_string(static_cast<int>(100 * *peak.share + 0.5)), 7) + " %";
    }
    return row(name, std::to_string(summary.facts), percent(peak.aie), interval(interval_at_peak(summary)),
               right(std::to_string(peak.layer), 5), share);
  }

  std::string relations() const {
    constexpr int kName = 20;
    auto groups = summary_.relations;
    std::stable_sort(groups.begin(), groups.end(),
                     [](const auto& a, const auto& b) { return a.second.facts > b.second.facts; });
    auto text = heading("relations") + ": total effect, and state of the last subject token at its peak\n";
    text += trimmed("  " + left("", kName) + right("facts", 7) + right("ATE %", 8) + "  " + left("95 % interval", 16) +
                    right("AIE %", 8) + right("layer", 7) + right("layers", 9));
    for (const auto& [name, group] : groups) {
      const auto shown_name = display_head(name, kName, {.unicode = style_.unicode}).text;
      text += trimmed("  " + left(shown_name, kName) + right(std::to_string(group.facts), 7) +
                      right(percent(*group.total_effect.mean), 8) + "  " +
                      left(interval(interval_of(group.total_effect)), 16) + last_subject_peak(group));
    }
    return text;
  }

  static std::string last_subject_peak(const GroupSummary& group) {
    const auto* state = group.find("state");
    const auto& peak =
        state == nullptr ? std::optional<Peak>() : state->roles[static_cast<std::size_t>(Role::kLastSubject)].peak;
    if (!peak) return "";
    const auto range =
        peak->layers ? std::to_string(peak->layers->first) + "-" + std::to_string(peak->layers->second) : "";
    return right(percent(peak->aie), 8) + right(std::to_string(peak->layer), 7) + right(range, 9);
  }

  /// The role with the largest average effect; for states the last token is left out, whose state decides the answer
  /// in the late layers by construction.
  std::string finding(const KindSummary& kind) const {
    const bool skip_last = kind.kind == "state";
    std::optional<Role> best;
    const auto peak_of = [&](Role role) { return kind.roles[static_cast<std::size_t>(role)].peak; };
    for (const auto role : kRoles) {
      if (!peak_of(role) || (skip_last && role == Role::kLast)) continue;
      if (!best || peak_of(role)->aie > peak_of(*best)->aie) best = role;
    }
    const std::string where = skip_last ? " before the last token" : "";
    if (!best || !(peak_of(*best)->aie > 0))
      return sentence("No " + shown(kind.kind) + where + " brings anything back on average.");
    const double effect = *summary_.overall.total_effect.mean, aie = peak_of(*best)->aie;
    auto text = "Strongest " + shown(kind.kind) + where + ": " + std::string(words_for(*best)) +
                (kind.window > 1 ? ", around layer " : ", layer ") + std::to_string(peak_of(*best)->layer) +
                ": brings back " + percentage(aie) + " of probability on average";
    if (effect > 0)
      text += " (" + std::to_string(static_cast<int>(100 * aie / effect + 0.5)) + kNoBreak + "% of the total effect)";
    return sentence(text + ".");
  }

  const SummaryResult& summary_;
  TerminalStyle style_;
};

}  // namespace

std::string render_summary(const SummaryResult& summary, const TerminalStyle& style) {
  auto usable = style;
  usable.columns = std::max(kNarrowest, style.columns);
  return SummaryText(summary, usable).render();
}

}  // namespace rometrace

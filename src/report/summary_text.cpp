#include "rometrace/report/summary_text.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <string_view>
#include <vector>

#include "report/display_text.hpp"
#include "report/edits_text.hpp"
#include "report/finding.hpp"
#include "report/palette.hpp"
#include "report/table_text.hpp"

namespace rometrace {
namespace {

std::string_view words_for(Role role) {
  constexpr std::array<std::string_view, kRoles.size()> kWords = {"first subject token", "middle subject tokens",
                                                                  "last subject token",  "first token after it",
                                                                  "further tokens",      "last token"};
  return kWords[static_cast<std::size_t>(role)];
}

bool is_severed(const KindSummary& kind) {
  return kind.kind.ends_with("_severed");
}

std::optional<Bounds> interval_at(const ErrorBars& bars, std::size_t place) {
  if (!bars.bootstrap_low.empty()) return Bounds{bars.bootstrap_low[place], bars.bootstrap_high[place]};
  if (!bars.normal_low.empty()) return Bounds{bars.normal_low[place], bars.normal_high[place]};
  return std::nullopt;
}

std::optional<Bounds> interval_at_peak(const EffectSummary& effects, std::int64_t heads) {
  const auto& peak = *effects.peak;
  return interval_at(effects, static_cast<std::size_t>(peak.head ? peak.layer * heads + *peak.head : peak.layer));
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
    for (const auto& kind : summary_.overall.kinds) text += table(kind, is_noising()) + "\n";
    if (!summary_.overall.gaps.empty()) text += gaps() + "\n";
    for (const auto& kind : summary_.overall.noising) text += table(kind, /*corrupted=*/true) + "\n";
    for (const auto& kind : summary_.overall.interactions) text += interaction(kind) + "\n";
    if (summary_.overall.knockout) text += knockout(*summary_.overall.knockout) + "\n";
    if (summary_.overall.neurons) text += neurons(*summary_.overall.neurons);
    if (!summary_.overall.measures.empty() || !summary_.overall.other_targets.empty()) text += readings() + "\n";
    if (!summary_.relations.empty()) text += relations() + "\n";
    if (!summary_.relations.empty() && summary_.overall.neurons)
      text += relations_of_neurons(*summary_.overall.neurons);
    for (const auto& kind : summary_.overall.kinds) {
      if (!is_severed(kind)) text += finding(kind);
    }
    return text;
  }

 private:
  std::string sentence(const std::string& text) const { return wrap(text, style_.columns, kSentenceIndent); }

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
      const auto edits = edits_text(summary_.model);
      text = "model " + text_of(summary_.model["name"]) + (edits.empty() ? "" : " (" + edits + ")") + ", ";
    }
    return sentence(text + corruption() + ", " + draws() + ", seed " + text_of(run["seed"]) + ", " +
                    text_of(run["dtype"]) +
                    (is_noising()                          ? ", noising (corrupted values in the clean run)"
                     : summary_.run["direction"] == "both" ? ", both directions"
                                                           : "") +
                    (run["approximate"] == true ? ", by gradients: an approximation" : ""));
  }

  std::string corruption() const {
    const auto& method = summary_.run["corruption"]["method"];
    if (method.is_string() && method != "noise") return "corruption " + text_of(method);
    const auto& noise = summary_.run["noise"];
    const bool has_sigma = noise["rule"].is_null() || !noise["sigma"].is_null();
    return "noise " + text_of(noise["rule"]) +
           (has_sigma ? std::string(" (sigma") + kNoBreak + text_of(noise["sigma"]) + ")" : "");
  }

  std::string draws() const {
    const auto& precision = summary_.run["precision"];
    return precision.is_null() ? "draws " + text_of(summary_.run["samples"])
                               : "draws up to a standard error of " + text_of(precision["asked"]);
  }

  bool is_noising() const { return summary_.run["direction"] == "noising"; }

  std::string totals() const {
    const auto& group = summary_.overall;
    auto text =
        sentence("Probability of the answer in percent, mean over " + std::to_string(group.facts) + " facts, with 95" +
                 kNoBreak + "% interval over facts (" + interval_words(summary_.config) + ")");
    return text + total("clean", group.high_score) + total("subject corrupted", group.low_score) +
           total("total effect (ATE)", group.total_effect);
  }

  static std::string total(const std::string& name, const Estimate& estimate) {
    return trimmed("  " + left(name, 22) + right(percent(*estimate.mean), 7) + "  " + interval(interval_of(estimate)));
  }

  std::string table(const KindSummary& kind, bool corrupted) const {
    auto text = heading(shown(kind.kind)) + ": " + std::string(words_for_kind(kind.kind)) +
                (corrupted ? " corrupted" : " restored") + layers_of(kind.window) + "\n";
    text += row("", "facts", "AIE %", "95 % interval", kind.heads > 0 ? "layer.head" : "peak layer", "replicates");
    for (const auto role : kRoles) {
      text += effect_row(std::string(words_for(role)), kind.roles[static_cast<std::size_t>(role)], kind.heads);
    }
    return text;
  }

  /// Of each role the layer whose interaction is furthest from 0.
  std::string interaction(const InteractionSummary& kind) const {
    auto text =
        heading(shown(kind.kind) + ", interaction") + ": what corrupting takes away, less what restoring brings back\n";
    text += knockout_row("", "facts", "points", "95 % interval", kind.heads > 0 ? "layer.head" : "layer");
    for (const auto role : kRoles) {
      const auto& effects = kind.roles[static_cast<std::size_t>(role)];
      if (effects.aie.empty()) {
        text += knockout_row(words_for(role), "0", "", "", "");
        continue;
      }
      const auto weaker = [](double a, double b) { return std::abs(a) < std::abs(b); };
      const auto strongest = std::max_element(effects.aie.begin(), effects.aie.end(), weaker);
      const auto place = strongest - effects.aie.begin(), columns = std::max<std::int64_t>(1, kind.heads);
      text += knockout_row(
          words_for(role), std::to_string(effects.facts), percent(*strongest),
          interval(interval_at(effects, static_cast<std::size_t>(place))),
          std::to_string(place / columns) + (kind.heads > 0 ? "." + std::to_string(place % columns) : std::string()));
    }
    return text + sentence("Above 0 it is of no use alone, below 0 others do the same (arXiv 2606.27510).");
  }

  std::string gaps() const {
    auto text = heading("gap") + ": what severing a path takes off the state's effect, last subject token\n";
    text += row("", "facts", "gap %", "95 % interval", "peak layer", "replicates");
    for (const auto& gap : summary_.overall.gaps) {
      text += effect_row(gap.severed == "mlp" ? "MLP severed" : "attention severed",
                         gap.roles[static_cast<std::size_t>(Role::kLastSubject)], 0);
    }
    return text + sentence("A peak of tracing does not tell where editing works best (arXiv 2301.04213).");
  }

  /// The layer of the strongest change, in either direction, for each group.
  std::string knockout(const KnockoutSummary& knockout) const {
    constexpr std::array<std::string_view, kKnockoutGroups.size()> kWords = {"subject", "before the subject",
                                                                             "after the subject", "last token"};
    auto text = heading("knockout") + ": attention to these tokens cut" + layers_of(knockout.window) + ", in %\n";
    text += knockout_row("", "facts", "change", "95 % interval", "layer");
    for (std::size_t i = 0; i < kKnockoutGroups.size(); ++i) {
      const auto& group = knockout.groups[i];
      const auto& changes = group.relative_change;
      if (changes.empty()) {
        text += knockout_row(kWords[i], "0", "", "", "");
        continue;
      }
      const auto weaker = [](double a, double b) { return std::abs(a) < std::abs(b); };
      const auto strongest = std::max_element(changes.begin(), changes.end(), weaker);
      const auto layer = strongest - changes.begin();
      text += knockout_row(kWords[i], std::to_string(group.facts), percent(*strongest),
                           interval(interval_at(group, static_cast<std::size_t>(layer))), std::to_string(layer));
    }
    return text;
  }

  static std::string knockout_row(std::string_view name, const std::string& facts, const std::string& change,
                                  const std::string& bounds, const std::string& layer) {
    return trimmed("  " + left(std::string(name), 21) + right(facts, 7) + right(change, 9) + "  " + left(bounds, 18) +
                   right(layer, 6));
  }

  // --- Neurons

  static std::string name_of(const SharedNeuron& neuron) {
    return std::to_string(neuron.layer) + ":" + std::to_string(neuron.neuron);
  }

  /// For each role with neurons those that most facts tell of, what two facts share, and the mean effects of sets.
  std::string neurons(const NeuronSummary& neurons) const {
    std::string text;
    for (const auto role : kRoles) {
      const auto& found = neurons.roles[static_cast<std::size_t>(role)];
      if (found.facts == 0) continue;
      text += heading("neurons") + ": " + std::string(words_for(role)) + ", " + std::to_string(found.facts) +
              " facts, those that most tell of\n" + best_neurons(found);
      if (!neurons.given) text += overlaps(found) + sets(found, neurons.candidates);
      text += "\n";
    }
    return text;
  }

  std::string best_neurons(const NeuronRoleSummary& role) const {
    constexpr std::size_t kMost = 8;
    auto text = neuron_row("layer:neuron", "facts", "share %", "effect %", "95 % interval", "promotes");
    for (std::size_t i = 0; i < std::min(kMost, role.best.size()); ++i) {
      const auto& best = role.best[i];
      constexpr int kTokenColumns = 14;
      const DisplayStyle quoted{.unicode = style_.unicode, .quoted = true};
      text += neuron_row(name_of(best), std::to_string(best.facts), whole_percent(best.share),
                         percent(*best.effect.mean), interval(interval_of(best.effect)),
                         best.promotes.empty() ? "" : display_head(best.promotes, kTokenColumns, quoted).text);
    }
    return text;
  }

  static std::string neuron_row(const std::string& name, const std::string& facts, const std::string& share,
                                const std::string& effect, const std::string& bounds, const std::string& token) {
    return trimmed("  " + left(name, 13) + right(facts, 7) + right(share, 9) + right(effect, 10) + "  " +
                   left(bounds, 18) + token);
  }

  static std::string whole_percent(double share) { return std::to_string(static_cast<int>(100 * share + 0.5)); }

  std::string overlaps(const NeuronRoleSummary& role) const {
    std::string text;
    const auto add = [&](const std::string& name, const NeuronOverlap& overlap) {
      if (!overlap.share) return;
      text += (text.empty() ? "" : ", ") + name + kNoBreak + percent(*overlap.share) + kNoBreak + "%";
    };
    add("of one relation", role.same_relation);
    add("of one subject", role.same_subject);
    add("of neither", role.neither);
    if (text.empty()) return "";
    const auto& any = role.neither.chance         ? role.neither.chance
                      : role.same_relation.chance ? role.same_relation.chance
                                                  : role.same_subject.chance;
    return sentence("What two facts share of the neurons that they tell of (" + significant(role.told) +
                    " each, mean): " + text + "; by chance " + percent(*any) + kNoBreak + "%.");
  }

  /// Every second size, and the last.
  std::string sets(const NeuronRoleSummary& role, std::int64_t candidates) const {
    if (role.sizes.empty()) return "";
    auto text = set_row("together", "effect %", "95 % interval", "by change", "random");
    const auto last = role.sizes.size() - 1;
    for (std::size_t i = 0; i <= last; ++i) {
      if (i % 2 != 0 && i != last) continue;
      text += set_row(std::to_string(role.sizes[i]), percent(role.sets.effect[i]), interval(interval_at(role.sets, i)),
                      percent(role.change.effect[i]), percent(role.random.effect[i]));
    }
    return text + halves(role.half, candidates);
  }

  static std::string set_row(const std::string& size, const std::string& effect, const std::string& bounds,
                             const std::string& change, const std::string& random) {
    return trimmed("  " + right(size, 13) + right(effect, 10) + "  " + left(bounds, 18) + right(change, 11) +
                   right(random, 10));
  }

  std::string halves(const NeuronHalves& half, std::int64_t candidates) const {
    const auto verb = is_noising() ? " take away" : " bring back";
    if (!half.median) return sentence(std::string("All neurons together") + verb + " nothing in any of them.");
    auto text = "Half of what all" + std::string(is_noising() ? " take away" : " bring back") + ": " +
                percent(*half.median) + kNoBreak + "% of " + std::to_string(candidates) + " neurons (median), mean " +
                percent(*half.share.mean) + kNoBreak + "%";
    auto bounds = interval(interval_of(half.share));
    std::replace(bounds.begin(), bounds.end(), ' ', kNoBreak);
    if (!bounds.empty()) text += " " + bounds;
    if (half.none > 0) {
      text +=
          "; in " + std::to_string(half.none) + " of " + std::to_string(half.tokens) + " cases all" + verb + " nothing";
    }
    return sentence(text + ".");
  }

  /// One row a relation at the role that most facts have.
  std::string relations_of_neurons(const NeuronSummary& overall) const {
    const auto fewer = [](const NeuronRoleSummary& a, const NeuronRoleSummary& b) { return a.facts < b.facts; };
    const auto place = std::max_element(overall.roles.begin(), overall.roles.end(), fewer) - overall.roles.begin();
    constexpr int kNameColumns = 20;
    auto text = heading("neurons by relation") + ": " +
                std::string(words_for(kRoles[static_cast<std::size_t>(place)])) + ", what pairs share in %\n";
    text += trimmed("  " + left("", kNameColumns) + right("facts", 7) + right("within", 9) + right("others", 9) +
                    right("half %", 9) + "  most told of");
    for (const auto& [name, group] : summary_.relations) {
      if (!group.neurons) continue;
      const auto& role = group.neurons->roles[static_cast<std::size_t>(place)];
      if (role.facts == 0) continue;
      const auto share_of = [](const NeuronOverlap& overlap) { return overlap.share ? percent(*overlap.share) : "-"; };
      auto best = role.best.empty() ? std::string() : name_of(role.best.front());
      if (!best.empty()) best += " (" + whole_percent(role.best.front().share) + " %)";
      text += trimmed("  " + left(display_head(name, kNameColumns, {.unicode = style_.unicode}).text, kNameColumns) +
                      right(std::to_string(role.facts), 7) + right(share_of(role.same_relation), 9) +
                      right(share_of(role.neither), 9) + right(role.half.median ? percent(*role.half.median) : "-", 9) +
                      "  " + best);
    }
    return text + "\n";
  }

  /// What was read beside the answer's probability, in its own unit; other targets in percent.
  std::string readings() const {
    auto text = heading("beside the probability") + ": means over facts, other targets in %\n";
    text += reading_row("", "facts", "clean", "corrupted", "difference");
    for (const auto& measure : summary_.overall.measures) {
      text += reading_row(shown(measure.measure), measure, &significant);
    }
    std::size_t number = 0;
    for (const auto& target : summary_.overall.other_targets) {
      ++number;
      const auto name =
          target.target ? "target " + shown("\"" + *target.target + "\"") : "other target " + std::to_string(number);
      text += reading_row(name, target, &percent);
    }
    return text + sentence("Their averages by token role and layer are in the JSON.");
  }

  static std::string significant(double value) {
    constexpr int kDigits = 4;
    std::array<char, 32> digits{};
    const auto end =
        std::to_chars(digits.data(), digits.data() + digits.size(), value, std::chars_format::general, kDigits).ptr;
    return {digits.data(), end};
  }

  template <typename Show>
  std::string reading_row(const std::string& name, const ReadingSummary& reading, const Show& show) const {
    const auto text_of_mean = [&](const Estimate& estimate) { return estimate.mean ? show(*estimate.mean) : "-"; };
    return reading_row(name, std::to_string(reading.facts), text_of_mean(reading.high), text_of_mean(reading.low),
                       text_of_mean(reading.total_effect));
  }

  std::string reading_row(const std::string& name, const std::string& facts, const std::string& clean,
                          const std::string& corrupted, const std::string& difference) const {
    constexpr int kNameColumns = 21;
    const auto label = display_head(name, kNameColumns, {.unicode = style_.unicode});
    return trimmed("  " + label.text + std::string(static_cast<std::size_t>(kNameColumns - label.columns), ' ') +
                   right(facts, 7) + right(clean, 11) + right(corrupted, 11) + right(difference, 12));
  }

  static std::string row(const std::string& name, const std::string& facts, const std::string& aie,
                         const std::string& bounds, const std::string& layer, const std::string& share) {
    return trimmed("  " + left(name, 21) + right(facts, 7) + right(aie, 8) + "  " + left(bounds, 16) + right(layer, 5) +
                   (share.empty() ? "" : "  " + share));
  }

  static std::string effect_row(const std::string& name, const EffectSummary& effects, std::int64_t heads) {
    if (!effects.peak) return row(name, "0", "", "", "", "");
    const auto& peak = *effects.peak;
    std::string share;
    if (peak.share) {
      share = right(std::to_string(static_cast<int>(100 * *peak.share + 0.5)), 7) + " %";
    }
    const auto place = std::to_string(peak.layer) + (peak.head ? "." + std::to_string(*peak.head) : "");
    return row(name, std::to_string(effects.facts), percent(peak.aie), interval(interval_at_peak(effects, heads)),
               right(place, 5), share);
  }

  std::string relations() const {
    constexpr int kNameColumns = 20;
    auto groups = summary_.relations;
    std::stable_sort(groups.begin(), groups.end(),
                     [](const auto& a, const auto& b) { return a.second.facts > b.second.facts; });
    auto text = heading("relations") + ": total effect, and state of the last subject token at its peak\n";
    text += trimmed("  " + left("", kNameColumns) + right("facts", 7) + right("ATE %", 8) + "  " +
                    left("95 % interval", 16) + right("AIE %", 8) + right("layer", 7) + right("layers", 9));
    for (const auto& [name, group] : groups) {
      const auto shown_name = display_head(name, kNameColumns, {.unicode = style_.unicode}).text;
      text += trimmed("  " + left(shown_name, kNameColumns) + right(std::to_string(group.facts), 7) +
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
      return sentence("No " + shown(kind.kind) + where +
                      (is_noising() ? " takes anything away on average." : " brings anything back on average."));
    const double effect = *summary_.overall.total_effect.mean, aie = peak_of(*best)->aie;
    const auto head = peak_of(*best)->head;
    auto text = "Strongest " + shown(kind.kind) + where + ": " + std::string(words_for(*best)) +
                (kind.window > 1 ? ", around layer " : ", layer ") + std::to_string(peak_of(*best)->layer) +
                (head ? ", head " + std::to_string(*head) : "") + (is_noising() ? ": takes away " : ": brings back ") +
                percentage(aie) + " of probability on average";
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
  usable.columns = std::max(kNarrowestText, style.columns);
  return SummaryText(summary, usable).render();
}

}  // namespace rometrace

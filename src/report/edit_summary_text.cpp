#include "rometrace/report/edit_summary_text.hpp"

#include <algorithm>
#include <array>
#include <vector>

#include "report/display_text.hpp"
#include "report/table_text.hpp"
#include "rometrace/summary/probe_summary.hpp"

namespace rometrace {
namespace {

constexpr int kNarrowest = 72;
constexpr int kWidest = 100;

std::string count_words(std::int64_t count, const std::string& noun) {
  return std::to_string(count) + " " + noun + (count == 1 ? "" : "s");
}

std::string percent_or_dash(const std::optional<double>& value) {
  return value ? percent(*value) : "-";
}

std::string layers_text(const std::optional<std::vector<std::int64_t>>& layers) {
  if (!layers) return "by trace";
  std::string text;
  for (const auto layer : *layers) text += (text.empty() ? "" : ",") + std::to_string(layer);
  return text;
}

std::string share_text(const char* what, std::int64_t count, std::int64_t of) {
  if (of == 0) return "";
  const double share = static_cast<double>(count) / static_cast<double>(of);
  const auto [low, high] = wilson_interval(share, static_cast<double>(of));
  return trimmed(left(what, 28) + right(std::to_string(count) + " of " + std::to_string(of), 14) +
                 right(percent(share), 9) + "   " + interval(Bounds{low, high}));
}

class EditTables {
 public:
  EditTables(const EditSummaryResult& result, const TerminalStyle& style)
      : result_(result), style_(style), columns_(std::max(kNarrowest, style.columns)) {}

  std::string text() const {
    auto text = introduction();
    if (result_.layers.empty() || facts() == 0) return text + prose("Nothing was edited.");
    if (result_.layers.size() == 1) {
      text += "\n" + scores(result_.layers.front()) + "\n" + verdicts(result_.layers.front());
    } else {
      text += "\n" + by_layer(result_.layers, /*with_tracing=*/true);
      text += findings();
    }
    for (const auto& [name, groups] : result_.relations) {
      text += "\n" + prose(shown(name) + ", " + count_words(groups.front().facts, "fact"));
      text += by_layer(groups, /*with_tracing=*/false);
    }
    return text;
  }

 private:
  std::string shown(const std::string& text) const { return display(text, {.unicode = style_.unicode}).text; }
  std::string prose(const std::string& text) const { return wrap(text, std::min(columns_, kWidest), 2); }

  std::int64_t facts() const {
    std::int64_t most = 0;
    for (const auto& group : result_.layers) most = std::max(most, group.facts);
    return most;
  }

  std::string introduction() const {
    auto text = count_words(result_.records, "record") + ":";
    for (const auto& [status, count] : result_.status) {
      text += (text.ends_with(':') ? " " : ", ") + std::to_string(count) + " " + status;
    }
    std::string causes;
    for (const auto& [cause, count] : result_.causes) {
      causes += (causes.empty() ? "" : ", ") + shown(cause) + " " + std::to_string(count);
    }
    if (!causes.empty()) text += " (" + causes + ")";
    text += ". Each fact was edited from the same weights";
    const auto method = result_.edit.value("method", std::string());
    if (!method.empty()) text += " by " + shown(method);
    if (result_.layers.size() == 1 && result_.layers.front().layers) {
      const auto& layers = *result_.layers.front().layers;
      text += std::string(layers.size() == 1 ? " in layer " : " in layers ") + layers_text(layers);
    }
    text += "; scores times 100, with their deviations over facts";
    if (result_.config.replicates > 0) text += " and the 95 % intervals of their means (bootstrap over facts)";
    return prose(text + ".");
  }

  static std::string scores(const EditGroupSummary& group) {
    std::string text = trimmed(left("", 4) + right("before", 10) + right("deviation", 11) + right("after", 10) +
                               right("deviation", 11) + "   interval");
    text += trimmed(left("S", 4) + right(percent_or_dash(group.before.overall), 10) + right("", 11) +
                    right(percent_or_dash(group.after.overall), 10) + right("", 11) + "   " +
                    interval(group.after.overall_bootstrap));
    for (const auto score : {Score::kES, Score::kPS, Score::kNS, Score::kEM, Score::kPM, Score::kNM}) {
      const auto &before = group.before.of(score), &after = group.after.of(score);
      text += trimmed(left(to_string(score), 4) + right(percent_or_dash(before.mean), 10) +
                      right(percent_or_dash(before.deviation), 11) + right(percent_or_dash(after.mean), 10) +
                      right(percent_or_dash(after.deviation), 11) + "   " + interval(after.bootstrap));
    }
    return text;
  }

  static std::string verdicts(const EditGroupSummary& group) {
    return share_text("took", group.took, group.facts) +
           share_text("took only behind prefixes", group.behind_prefixes, group.facts) +
           share_text("no effect", group.no_effect, group.facts) +
           share_text("leaks to a neighbour", group.leaks, group.with_neighbours);
  }

  // After the edits.
  std::string by_layer(const std::vector<EditGroupSummary>& groups, bool with_tracing) const {
    const auto* tracing = with_tracing && result_.tracing ? &*result_.tracing : nullptr;
    std::string text =
        trimmed(left("layer", 9) + right("facts", 6) + right("S", 8) + right("", 18) + right("ES", 8) + right("PS", 8) +
                right("NS", 8) + (tracing != nullptr ? right("MLPs", 8) + right("state", 8) : ""));
    for (const auto& group : groups) {
      std::string line = left(layers_text(group.layers), 9) + right(std::to_string(group.facts), 6) +
                         right(percent_or_dash(group.after.overall), 8) + "  " +
                         left(interval(group.after.overall_bootstrap), 16);
      for (const auto score : {Score::kES, Score::kPS, Score::kNS}) {
        line += right(percent_or_dash(group.after.of(score).mean), 8);
      }
      if (tracing != nullptr && group.layers && group.layers->size() == 1) {
        for (const auto* curve : {&tracing->mlp, &tracing->state}) {
          const auto layer = static_cast<std::size_t>(group.layers->front());
          line += right(layer < curve->effect.size() ? percent(curve->effect[layer]) : "-", 8);
        }
      }
      text += trimmed(line);
    }
    return text;
  }

  static std::string peak_text(const Peak& peak) {
    auto text = "layer " + std::to_string(peak.layer);
    if (peak.layers) {
      text += " (95 %: " + std::to_string(peak.layers->first) + " to " + std::to_string(peak.layers->second) + ")";
    }
    return text;
  }

  std::string findings() const {
    std::string text;
    if (result_.best) text += "S is largest in " + peak_text(*result_.best) + ".";
    if (result_.tracing && result_.tracing->mlp.peak && result_.tracing->state.peak) {
      const auto& tracing = *result_.tracing;
      text += std::string(text.empty() ? "" : " ") +
              "Restoring clean values at the subject's last token brings most back of the old object, of MLPs in " +
              std::to_string(tracing.window) + " layers, around " + peak_text(*tracing.mlp.peak) +
              ", of a single state at " + peak_text(*tracing.state.peak) + ".";
    }
    return text.empty() ? "" : "\n" + prose(text);
  }

  const EditSummaryResult& result_;
  TerminalStyle style_;
  int columns_;
};

}  // namespace

std::string render_edit_summary(const EditSummaryResult& result, const TerminalStyle& style) {
  return EditTables(result, style).text();
}

}  // namespace rometrace

#include "report/finding.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <iterator>
#include <optional>
#include <string_view>
#include <vector>

#include "report/display_text.hpp"
#include "report/neuron_text.hpp"
#include "rometrace/study/hardly_lowered.hpp"

namespace rometrace {

namespace {


std::string digits_of(double value, std::chars_format format, int precision) {
  std::array<char, 512> digits{};  // room for any double without an exponent
  const auto end = std::to_chars(digits.data(), digits.data() + digits.size(), value, format, precision).ptr;
  return {digits.data(), end};
}

std::string quoted_prompt(std::string_view bytes, const TerminalStyle& style) {
  constexpr int kLongest = 160;
  return display_tail(bytes, kLongest, {.unicode = style.unicode, .quoted = true}).text;
}

bool hardly_lowered(const Trace& trace) {
  return rometrace::hardly_lowered(trace.high_score, trace.low_score, trace.low_standard_error);
}

std::string measure_value(Measure measure, double value) {
  if (!std::isfinite(value) || measure != Measure::kRank) return probability(value);
  constexpr double kTooLarge = 1e7;  // to be a rank
  const bool whole = value == std::floor(value) || value >= 100;
  return value < kTooLarge ? digits_of(value, std::chars_format::fixed, whole ? 0 : 1) : probability(value);
}

/// A line of the table of what was read.
struct MeasureRow {
  std::string name;   ///< "logit difference to"
  std::string token;  ///< what the name is followed by, if anything
  std::string clean;
  std::string corrupted;
};

/// The sentences of a trace.
class Findings {
 public:
  Findings(const TraceRecord& record, const TerminalStyle& style)
      : record_(record),
        trace_(record.trace),
        style_(style),
        columns_(std::min(style.columns, kTextColumns)),
        noising_(record.options.direction == Direction::kNoising) {}

  std::string render() const {
    std::string result = sentence(total_effect());
    if (record_.asked_tokens > std::ssize(trace_.answer_ids)) result += sentence(short_answer());
    if (trace_.prediction_id != trace_.answer_id()) result += sentence(prediction());
    if (const auto warning = warning_of(trace_)) result += sentence(capitalised(*warning) + ".");
    if (record_.options.precision) result += sentence(precision(*record_.options.precision));
    for (const auto& grid : trace_.grids) result += sentence(of_grid(grid));
    for (const auto& text : neuron_sentences(record_, style_)) result += sentence(text);
    return result + measures();
  }

 private:
  std::string sentence(const std::string& text) const { return wrap(text, columns_, kSentenceIndent); }

  static std::string capitalised(std::string text) {
    if (text.front() >= 'a' && text.front() <= 'z') text.front() = static_cast<char>(text.front() - 'a' + 'A');
    return text;
  }

  std::string total_effect() const {
    const auto corruption = corruption_words(record_, style_);
    const bool noise = record_.options.corruption.method == CorruptionMethod::kNoise;
    return quoted_prompt(record_.prompt.prompt, style_) + " -> " + quoted_answer(record_, style_) + ": probability " +
           probability(trace_.high_score) + " clean, " + probability(trace_.low_score) + " with the " +
           std::string(corruption.what) + " " + (noise ? "corrupted" : corruption.how) + ": total effect " +
           probability(trace_.total_effect()) + ".";
  }

  std::string short_answer() const {
    const auto tokens = trace_.answer_ids.size();
    return "The model ends its text after " + std::to_string(tokens) + (tokens == 1 ? " token" : " tokens") + " of " +
           std::to_string(record_.asked_tokens) + ".";
  }

  std::string prediction() const {
    const auto& text = record_.texts.prediction;
    return std::string("The model itself ") + (trace_.answer_ids.size() > 1 ? "begins with " : "says ") +
           (text.empty() ? "token " + std::to_string(trace_.prediction_id) : quoted_token(text, style_)) +
           ": probability " + probability(trace_.prediction_score) + ".";
  }

  std::string precision(double asked) const {
    const double error = trace_.largest_error;
    const bool reached = !std::isfinite(error) || error <= asked;
    return std::to_string(trace_.samples) + (trace_.samples == 1 ? " draw" : " draws") +
           (reached ? "" : ", the most allowed") + ": the largest standard error of a probability is " +
           (reached ? "" : "still ") + probability(error) + " (asked for: at most " + probability(asked) + ").";
  }

  std::string of_grid(const CausalGrid& grid) const {
    switch (grid.kind) {
      case Kind::kKnockout:
        return of_knockout(grid);
      case Kind::kStateMlpSevered:
      case Kind::kStateAttnSevered:
        return of_severed(grid).value_or(of_cell(grid));
      case Kind::kState:
      case Kind::kMlp:
      case Kind::kAttn:
      case Kind::kHead:
        break;
    }
    return of_cell(grid);
  }

  bool skips_last(const CausalGrid& grid) const { return end_of_search(grid, trace_.tokens) < trace_.tokens; }

  std::optional<GridCell> strongest(const CausalGrid& grid) const {
    return strongest_cell(grid, trace_.layers, noising_, end_of_search(grid, trace_.tokens));
  }

  double effect_of(double score) const { return noising_ ? trace_.high_score - score : score - trace_.low_score; }

  std::string of_cell(const CausalGrid& grid) const {
    const std::string kind(words_of(grid.kind));
    const std::string where = skips_last(grid) ? " before the last token" : "";
    const auto best = strongest(grid);
    if (!best || !(effect_of(best->score) > 0)) {
      return "No " + kind + where + (noising_ ? " takes anything away." : " brings anything back.");
    }
    const auto layer = std::string(around(grid)) + "layer " + std::to_string(best->layer);
    const auto token = token_of(grid, *best) + " (" + std::string(role_of(record_, grid.positions[best->row])) + ")";
    const auto place = grid.kind == Kind::kHead ? layer + ", head " + std::to_string(best->head) + " at " + token
                                                : token + ", " + layer;
    return "Strongest " + kind + where + ": " + place + ": " + effect_words(record_, effect_of(best->score)) + ".";
  }

  static std::string_view around(const CausalGrid& grid) { return grid.window > 1 ? "around " : ""; }

  std::string token_of(const CausalGrid& grid, const GridCell& cell) const {
    return quoted_token(record_.texts.prompt[static_cast<std::size_t>(grid.positions[cell.row])], style_);
  }

  /// What becomes of the strongest state; nothing if states themselves were not traced, or do nothing.
  std::optional<std::string> of_severed(const CausalGrid& grid) const {
    const auto state = std::find_if(trace_.grids.begin(), trace_.grids.end(),
                                    [](const CausalGrid& other) { return other.kind == Kind::kState; });
    if (state == trace_.grids.end() || state->positions != grid.positions) return std::nullopt;
    const auto best = strongest(*state);
    if (!best || !(effect_of(best->score) > 0)) return std::nullopt;
    const auto from = best->score;
    const auto to =
        grid.scores[best->row * static_cast<std::size_t>(trace_.layers) + static_cast<std::size_t>(best->layer)];
    if (!std::isfinite(to)) return std::nullopt;
    const auto change = probability(from) == probability(to) ? "stays at " + probability(to)
                                                             : (to < from ? "falls from " : "rises from ") +
                                                                   probability(from) + " to " + probability(to);
    return std::string("With its ") + (grid.kind == Kind::kStateMlpSevered ? "MLP" : "attention") +
           " severed the strongest state " + change + " (layer" + kNoBreak + std::to_string(best->layer) + ", " +
           token_of(*state, *best) + ").";
  }

  static std::string_view words_of_group(std::string_view name) {
    return name == "subject"  ? "the subject"
           : name == "before" ? "the tokens before the subject"
           : name == "after"  ? "the tokens after the subject"
                              : "the last token itself";
  }

  std::string of_knockout(const CausalGrid& grid) const {
    std::string text;
    for (std::size_t row = 0; row < grid.rows(); ++row) {
      const auto* scores = grid.scores.data() + row * static_cast<std::size_t>(trace_.layers);
      std::optional<std::int64_t> lowest;
      for (std::int64_t layer = 0; layer < trace_.layers; ++layer) {
        if (std::isfinite(scores[layer]) && (!lowest || scores[layer] < scores[*lowest])) lowest = layer;
      }
      if (!lowest || !(scores[*lowest] < trace_.high_score)) continue;
      const double percent = 100 * (trace_.high_score - scores[*lowest]) / trace_.high_score;
      const auto by = " by " + (percent < 0.5 ? "less" + no_break_spaces(" than 1") : whole(percent)) + kNoBreak + "%";
      const auto at = (grid.window > 1 ? "around layer " : "in layer ") + std::to_string(*lowest);
      const std::string group(words_of_group(grid.groups[row].name));
      text += text.empty() ? "Cutting attention to " + group + " " + at + " lowers the probability" + by
                           : "; to " + group + by + " (" + at + ")";
    }
    return text.empty() ? "Cutting attention lowers the probability nowhere." : text + ".";
  }

  static std::string whole(double value) { return digits_of(value, std::chars_format::fixed, 0); }

  static std::string no_break_spaces(std::string text) {
    std::replace(text.begin(), text.end(), ' ', kNoBreak);
    return text;
  }

  bool asked_for(Measure measure) const {
    const auto& asked = record_.options.measures;
    return std::find(asked.begin(), asked.end(), measure) != asked.end();
  }

  static std::string name_of(Measure measure) {
    switch (measure) {
      case Measure::kProbability:
        return "probability of";
      case Measure::kLogProbability:
        return "log probability";
      case Measure::kLogit:
        return "logit";
      case Measure::kLogitDifference:
        return "logit difference to";
      case Measure::kNormalised:
        return "normalised";
      case Measure::kRank:
        return "rank";
      case Measure::kKl:
        return "KL divergence, nats";
    }
    return "unknown";
  }

  /// The answer's probability and measures, then the other targets' probabilities; none if there is only the first.
  std::vector<MeasureRow> measure_rows() const {
    std::vector<MeasureRow> measures, targets;
    bool has_difference = false;
    for (const auto& [reading, high, low, error] : trace_.measured) {
      const auto clean = measure_value(reading.measure, high), corrupted = measure_value(reading.measure, low);
      if (reading.target > 0) {
        const auto& target = record_.texts.other_targets[reading.target - 1];
        targets.push_back({name_of(reading.measure), target, clean, corrupted});
        continue;
      }
      const bool difference = reading.measure == Measure::kLogitDifference;
      has_difference = has_difference || difference;
      if (!asked_for(reading.measure)) continue;  // is there for kNormalised
      const auto token = difference ? record_.texts.foil.value_or("") : "";
      measures.push_back({name_of(reading.measure), token, clean, corrupted});
    }
    if (asked_for(Measure::kNormalised)) {
      measures.push_back({has_difference ? "normalised logit difference" : "normalised probability", "", "1", "0"});
    }
    if (measures.empty() && targets.empty()) return {};
    std::vector<MeasureRow> rows = {{name_of(Measure::kProbability), record_.texts.answer,
                                     probability(trace_.high_score), probability(trace_.low_score)}};
    rows.insert(rows.end(), measures.begin(), measures.end());
    rows.insert(rows.end(), targets.begin(), targets.end());
    return rows;
  }

  /// A table or, where that is too narrow, a sentence for each of its lines.
  std::string measures() const {
    constexpr int kTableFrom = 50, kNumber = 11;  // "-1.23e-100", and a space
    const auto rows = measure_rows();
    if (rows.empty()) return "";
    std::string result = "\n";
    if (columns_ < kTableFrom) {
      for (const auto& row : rows) {
        result += sentence(capitalised(row.name) + (row.token.empty() ? "" : " " + quoted_token(row.token, style_)) +
                           ": " + row.clean + " clean, " + row.corrupted + " corrupted.");
      }
      return result;
    }
    std::vector<DisplayText> labels = {{"measure", 7}};
    for (const auto& row : rows) {
      DisplayText label{row.name, static_cast<int>(row.name.size())};
      if (!row.token.empty()) {
        const auto token = display_head(row.token, columns_ - 2 * kNumber - label.columns - 1,
                                        {.unicode = style_.unicode, .quoted = true});
        label = {label.text + " " + token.text, label.columns + 1 + token.columns};
      }
      labels.push_back(label);
    }
    int widest = 0;
    for (const auto& label : labels) widest = std::max(widest, label.columns);
    const auto line = [&](const DisplayText& label, const std::string& clean, const std::string& corrupted) {
      const auto right = [](const std::string& text) {
        return std::string(kNumber - std::min<std::size_t>(kNumber, text.size()), ' ') + text;
      };
      return label.text + std::string(static_cast<std::size_t>(widest - label.columns), ' ') + right(clean) +
             right(corrupted) + "\n";
    };
    result += line(labels.front(), "clean", "corrupted");
    for (std::size_t i = 0; i < rows.size(); ++i) result += line(labels[i + 1], rows[i].clean, rows[i].corrupted);
    return result;
  }

  const TraceRecord& record_;
  const Trace& trace_;
  const TerminalStyle& style_;
  int columns_;
  bool noising_;
};

}  // namespace

std::string render_findings(const TraceRecord& record, const TerminalStyle& style) {
  return Findings(record, style).render();
}

std::optional<std::string> warning_of(const Trace& trace) {
  const std::string what = trace.grids.empty() && trace.neurons ? "neurons" : "grids";
  if (!std::isfinite(trace.total_effect())) {
    return "a probability is not a number: the model's computation failed, so the " + what + " say nothing";
  }
  const bool only_knockouts =
      !trace.grids.empty() && std::all_of(trace.grids.begin(), trace.grids.end(),
                                          [](const CausalGrid& grid) { return grid.kind == Kind::kKnockout; });
  if ((only_knockouts && !trace.neurons) || !hardly_lowered(trace)) return std::nullopt;
  return (trace.total_effect() > 0
              ? "the corruption hardly lowers the answer's probability, so the "
              : "the corruption does not lower the answer's probability, so there is no effect to trace and the ") +
         what + " say little";
}

std::optional<GridCell> strongest_cell(const CausalGrid& grid, std::int64_t layers, bool lowest, std::int64_t end) {
  std::optional<GridCell> best;
  std::size_t index = 0;
  for (std::size_t row = 0; row < grid.rows(); ++row) {
    for (std::int64_t layer = 0; layer < layers; ++layer) {
      for (std::int64_t head = 0; head < grid.heads; ++head) {
        const double score = grid.scores[index++];
        if (grid.positions[row] >= end || !std::isfinite(score)) continue;
        if (!best || (lowest ? score < best->score : score > best->score)) best = GridCell{row, layer, head, score};
      }
    }
  }
  return best;
}

std::int64_t end_of_search(const CausalGrid& grid, std::int64_t tokens) {
  const bool is_of_states =
      grid.kind == Kind::kState || grid.kind == Kind::kStateMlpSevered || grid.kind == Kind::kStateAttnSevered;
  return is_of_states && !grid.positions.empty() && grid.positions.front() < tokens - 1 ? tokens - 1 : tokens;
}

std::string effect_words(const TraceRecord& record, double effect) {
  const bool noising = record.options.direction == Direction::kNoising;
  const auto& trace = record.trace;
  if (hardly_lowered(trace)) return (noising ? "lowers it by " : "raises it by ") + probability(effect);
  return (noising ? "takes away " : "brings back ") + probability(effect) + " (" +
         digits_of(100 * effect / trace.total_effect(), std::chars_format::fixed, 0) + kNoBreak +
         "% of the total effect)";
}

std::string_view role_of(const TraceRecord& record, std::int64_t position) {
  const auto begin = static_cast<std::int64_t>(record.prompt.subject_range.begin);
  const auto end = static_cast<std::int64_t>(record.prompt.subject_range.end);
  if (position >= begin && position < end) {
    return end - begin == 1      ? "the subject's only token"
           : position == begin   ? "first subject token"
           : position == end - 1 ? "last subject token"
                                 : "middle subject token";
  }
  if (position == record.trace.tokens - 1) return "last token";
  return position < begin ? "before the subject" : position == end ? "first token after the subject" : "further token";
}

std::string_view words_of(Kind kind) {
  return kind == Kind::kStateMlpSevered    ? "state with MLP severed"
         : kind == Kind::kStateAttnSevered ? "state with attention severed"
                                           : to_string(kind);
}

bool is_approximate(const RunRecord& run) {
  return run.engine == to_string(Engine::kGradient);
}

CorruptionWords corruption_words(const TraceRecord& record, const TerminalStyle& style) {
  const auto& corruption = record.options.corruption;
  switch (corruption.method) {
    case CorruptionMethod::kZero:
      return {"subject", "set to zero"};
    case CorruptionMethod::kMean:
      return {"subject", "set to a mean embedding"};
    case CorruptionMethod::kTokens: {
      if (!record.counter) return {"prompt", "replaced by another"};
      const auto& subject = record.counter->subject;
      return {subject ? "subject" : "prompt",
              "replaced by " + quoted_prompt(subject.value_or(record.counter->prompt), style)};
    }
    case CorruptionMethod::kNoise:
      break;
  }
  return {"subject", corruption.replace ? "replaced by noise" : "corrupted by noise"};
}

std::string quoted_answer(const TraceRecord& record, const TerminalStyle& style) {
  const auto tokens = record.trace.answer_ids.size();
  return quoted_token(record.texts.answer, style) +
         (tokens > 1 ? " (" + std::to_string(tokens) + kNoBreak + "tokens)" : "");
}

std::string quoted_token(std::string_view bytes, const TerminalStyle& style) {
  constexpr int kLongest = 40;
  const int room = std::min(kLongest, style.columns - 4);
  auto text = display_head(bytes, room, {.unicode = style.unicode, .quoted = true}).text;
  std::replace(text.begin(), text.end(), ' ', kNoBreak);
  return text;
}

std::string probability(double value) {
  constexpr int kSignificantDigits = 3;
  return std::isfinite(value) ? digits_of(value, std::chars_format::general, kSignificantDigits) : "unknown";
}

std::string percentage(double value) {
  return probability(100 * value) + kNoBreak + "%";
}

}  // namespace rometrace

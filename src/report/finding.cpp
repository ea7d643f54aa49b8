#include "report/finding.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <optional>
#include <string_view>

#include "report/display_text.hpp"

namespace rometrace {

namespace {

constexpr int kTextColumns = 100;  // longer lines are hard to read

/// A cell of a grid.
struct Cell {
  std::int64_t token = 0;
  std::int64_t layer = 0;
  double score = 0;
};

std::string number(double value, std::chars_format format, int precision) {
  std::array<char, 64> digits{};
  const auto end = std::to_chars(digits.data(), digits.data() + digits.size(), value, format, precision).ptr;
  return {digits.data(), end};
}

std::string quoted_prompt(std::string_view bytes, const TerminalStyle& style) {
  constexpr int kLongest = 160;
  return display_tail(bytes, kLongest, {.unicode = style.unicode, .quoted = true}).text;
}

/// The strongest cell among the first `rows` tokens; nothing if no score is a number.
std::optional<Cell> strongest(const CausalGrid& grid, const Trace& trace, std::int64_t rows) {
  std::optional<Cell> best;
  for (std::int64_t token = 0; token < rows; ++token) {
    for (std::int64_t layer = 0; layer < trace.layers; ++layer) {
      const double score = grid.scores[static_cast<std::size_t>(token * trace.layers + layer)];
      if (std::isfinite(score) && (!best || score > best->score)) {
        best = Cell{token, layer, score};
      }
    }
  }
  return best;
}

/// The token's part in the prompt, in the paper's words.
std::string_view role_of(std::int64_t token, const Trace& trace, const TokenRange& subject) {
  const auto begin = static_cast<std::int64_t>(subject.begin);
  const auto end = static_cast<std::int64_t>(subject.end);
  if (token >= begin && token < end) {
    return end - begin == 1   ? "the subject's only token"
           : token == begin   ? "first subject token"
           : token == end - 1 ? "last subject token"
                              : "middle subject token";
  }
  if (token == trace.tokens - 1) {
    return "last token";
  }
  return token < begin ? "before the subject" : token == end ? "first token after the subject" : "further token";
}

/// True if the answer falls by less than 5 % of its probability, or by less than two standard errors.
bool hardly_lowered(const Trace& trace) {
  constexpr double kSmallPart = 0.05;
  const double effect = trace.total_effect();
  const double noise = std::isfinite(trace.low_standard_error) ? 2 * trace.low_standard_error : 0;
  return !(effect >= kSmallPart * trace.high_score && effect >= noise && effect > 0);
}

std::string total_effect_sentence(const Trace& trace, const TracePrompt& prompt, const TokenTexts& texts,
                                  const TerminalStyle& style) {
  return quoted_prompt(prompt.prompt, style) + " -> " + quoted_token(texts.answer, style) + ": probability " +
         probability(trace.high_score) + " clean, " + probability(trace.low_score) +
         " with the subject corrupted: total effect " + probability(trace.total_effect()) + ".";
}

std::string prediction_sentence(const Trace& trace, const TokenTexts& texts, const TerminalStyle& style) {
  return "The model itself says " + quoted_token(texts.prediction, style) + ": probability " +
         probability(trace.prediction_score) + ".";
}

std::string warning_sentence(const Trace& trace) {
  if (!std::isfinite(trace.total_effect())) {
    return "A probability is not a number: the model's computation failed, so the grids say nothing.";
  }
  return trace.total_effect() > 0
             ? "The corruption hardly lowers the answer's probability, so the grids say little."
             : "The corruption does not lower the answer's probability, so there is nothing to bring back and the "
               "grids say little.";
}

std::string percent_of_effect(double effect, const Trace& trace) {
  return number(100 * effect / trace.total_effect(), std::chars_format::fixed, 0) + kNoBreak + "%";
}

std::string grid_sentence(const CausalGrid& grid, const Trace& trace, const TracePrompt& prompt,
                          const TokenTexts& texts, const TerminalStyle& style) {
  const bool skip_last = grid.kind == Kind::kState && trace.tokens > 1;
  const std::string kind(to_string(grid.kind));
  const std::string where = skip_last ? " before the last token" : "";
  const auto best = strongest(grid, trace, skip_last ? trace.tokens - 1 : trace.tokens);
  if (!best || !(best->score > trace.low_score)) {
    return "No " + kind + where + " brings anything back.";
  }
  const double effect = best->score - trace.low_score;
  const std::string layer = (grid.window > 1 ? "around layer " : "layer ") + std::to_string(best->layer);
  const std::string part =
      hardly_lowered(trace) ? "" : " (" + percent_of_effect(effect, trace) + " of the total effect)";
  return "Strongest " + kind + where + ": " + quoted_token(texts.prompt[static_cast<std::size_t>(best->token)], style) +
         " (" + std::string(role_of(best->token, trace, prompt.subject_range)) + "), " + layer +
         (hardly_lowered(trace) ? ": raises it by " : ": brings back ") + probability(effect) + part + ".";
}

}  // namespace

std::string render_findings(const Trace& trace, const TracePrompt& prompt, const TokenTexts& texts,
                            const TerminalStyle& style) {
  constexpr int kIndent = 2;
  const int columns = std::min(style.columns, kTextColumns);
  std::string result = wrap(total_effect_sentence(trace, prompt, texts, style), columns, kIndent);
  if (trace.prediction_id != trace.answer_id) {
    result += wrap(prediction_sentence(trace, texts, style), columns, kIndent);
  }
  if (hardly_lowered(trace)) {
    result += wrap(warning_sentence(trace), columns, kIndent);
  }
  for (const auto& grid : trace.grids) {
    result += wrap(grid_sentence(grid, trace, prompt, texts, style), columns, kIndent);
  }
  return result;
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
  return std::isfinite(value) ? number(value, std::chars_format::general, kSignificantDigits) : "unknown";
}

std::string percentage(double value) {
  return probability(100 * value) + kNoBreak + "%";
}

}  // namespace rometrace

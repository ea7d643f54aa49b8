#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "rometrace/report/json.hpp"
#include "rometrace/report/terminal.hpp"

namespace rometrace {

/// Sentences are wrapped to this where a terminal is wider: longer lines are hard to read.
inline constexpr int kTextColumns = 100;

/// What the trace found, in sentences, each wrapped to `columns`: total effect; for each grid its strongest cell; then
/// a table of what was read beside the answer's probability. For states the last token is left out where others are
/// listed: its state decides the answer in the late layers by construction.
std::string render_findings(const TraceRecord& record, const TerminalStyle& style);

/// A cell of a grid.
struct GridCell {
  std::size_t row = 0;
  std::int64_t layer = 0;
  std::int64_t head = 0;
  double score = 0;
};

/// The grid's cell with the largest score or, where `lowest`, the smallest, of the rows for positions before `end`;
/// nothing if no score there is a number.
std::optional<GridCell> strongest_cell(const CausalGrid& grid, std::int64_t layers, bool lowest, std::int64_t end);

/// The position before which the grid's strongest cell is looked for: of states the last of the prompt's `tokens`, where
/// others are listed, since its state decides the answer in the late layers by construction.
std::int64_t end_of_search(const CausalGrid& grid, std::int64_t tokens);

/// What the kind is called in sentences: "mlp", "state with MLP severed".
std::string_view words_of(Kind kind);

/// True if what `run` computed is not the scores themselves.
bool is_approximate(const RunRecord& run);

/// What the corruption does to the subject or, with another prompt, to the whole: "corrupted by noise".
struct CorruptionWords {
  std::string_view what;  ///< "subject", "prompt"
  std::string how;        ///< for wrap()
};
CorruptionWords corruption_words(const TraceRecord& record, const TerminalStyle& style);

/// What a change of `effect` does: "brings back 0.31 (55 % of the total effect)", "takes away ..." when noising; where
/// the corruption hardly lowers the answer "raises it by 0.31", for wrap().
std::string effect_words(const TraceRecord& record, double effect);

/// A prompt position's part, in the paper's words: "last subject token".
std::string_view role_of(const TraceRecord& record, std::int64_t position);

/// The answer as quoted_token() has it; of several tokens it says so.
std::string quoted_answer(const TraceRecord& record, const TerminalStyle& style);

/// A token between quotes, escaped, cut to fit a line; its spaces are kNoBreak, for wrap().
std::string quoted_token(std::string_view bytes, const TerminalStyle& style);

/// A probability with three significant digits ("0.976", "0.0262", "2.1e-05"), the same in every locale.
std::string probability(double value);

/// A probability in percent, as above ("97.6 %"), for wrap().
std::string percentage(double value);

}  // namespace rometrace

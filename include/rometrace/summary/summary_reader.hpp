#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "rometrace/error.hpp"
#include "rometrace/results/line_reader.hpp"

namespace rometrace {

/// The scores of one kind of restoration in a line, row-major [rows, layers], or [rows, layers, heads] of the kind
/// "head"; NaN where the line has null.
struct SummaryGrid {
  std::string kind;         ///< "state", "mlp", "attn", "head", "state_mlp_severed", "state_attn_severed"
  std::int64_t window = 0;  ///< layers
  std::int64_t rows = 0;
  std::int64_t layers = 0;
  std::int64_t heads = 0;                              ///< of the kind "head"; 0 for the others
  std::optional<std::vector<std::int64_t>> positions;  ///< of the rows in the prompt; none: row t is of token t
  std::vector<double> scores;

  std::int64_t cells() const { return layers * std::max<std::int64_t>(1, heads); }  ///< of a row
};

/// What a line reads beside the probability of its answer: a measure, or another target's probability.
struct SummaryReading {
  std::string measure;                                     ///< "rank", "kl", ...; empty: another target
  std::optional<std::string> target;                       ///< the other target's text
  std::optional<std::string> of;                           ///< what "normalised" is of
  double high = std::numeric_limits<double>::quiet_NaN();  ///< clean
  double low = high;                                       ///< corrupted; both NaN for null
  std::vector<SummaryGrid> grids;  ///< windows and positions are those of the line's grids of the same kinds
};

/// One line of a results file.
struct SummaryLine {
  enum class Type {
    kHeader,  ///< "rometrace/batch/1"
    kTrace,   ///< "rometrace/trace/1", whatever its status
    kProbe,   ///< "rometrace/probe/1"
    kEdit,    ///< "rometrace/edited-fact/1"
  };

  Type type = Type::kTrace;
  nlohmann::json json;  ///< all but grids, measures, other_targets, token_bytes and token_ids: most of a line
  std::vector<SummaryGrid> grids;        ///< in the order of the line; their other fields are not kept
  std::vector<SummaryGrid> noising;      ///< those of the other direction, where both were traced; likewise
  std::vector<SummaryReading> readings;  ///< measures and other targets, in the order of the line
  std::string where;                     ///< "results.jsonl, line 3", for messages
};

/// A line that is not a JSON object.
class DamagedLine : public Error {
 public:
  using Error::Error;
};

/// Reads one line; `where` opens the messages. Throws DamagedLine (not JSON, no object, grids of uneven rows), Error
/// (an unknown schema).
SummaryLine parse_summary_line(std::string_view text, std::string_view where);

/// Reads a results file line by line; holds one line at a time, however long the file. Blank lines are passed over. A
/// last line that cannot be read is what a batch leaves that is running or was killed: it ends the file, and is told by
/// torn(). (The other readers of results need a header; this one takes what single runs have written as well.)
class SummaryReader {
 public:
  /// `name`: a file, or "-" for standard input. Throws Error naming the file that cannot be opened.
  explicit SummaryReader(const std::string& name, std::stop_token stop = {});

  /// The next line into `line`; false at the end. Throws as parse_summary_line() does, Error (cannot be read, a line of
  /// more than 256 MiB), Interrupted.
  bool next(SummaryLine& line);

  bool torn() const { return torn_; }                               ///< once next() has given false
  const std::string& label() const { return lines_.label(); }       ///< the file, as messages show it
  std::uint64_t bytes_read() const { return lines_.bytes_read(); }  ///< of size(), where that is known
  std::uint64_t size() const { return lines_.size(); }

 private:
  LineReader lines_;
  bool torn_ = false;
};

}  // namespace rometrace

#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "rometrace/facts/shard.hpp"

namespace rometrace {

inline constexpr std::string_view kBatchSchema = "rometrace/batch/1";

/// The first line of a batch's results: what its lines have in common, and which facts belong there.
struct ResultsHeader {
  std::string text;           ///< the line, without its newline
  std::string command;        ///< "trace", "probe" or "edit"
  std::int64_t selected = 0;  ///< facts in the whole selection
  Shard shard;                ///< 1/1 for a file of the whole
  bool is_shard = false;      ///< whether the header names a shard, if only 1/1
};

/// Reads a header. `where` opens the messages, `advice` ends them. Throws Error: another schema, a field that is
/// missing.
ResultsHeader parse_results_header(std::string_view line, const std::string& where, const std::string& advice);

/// A field in which two headers differ.
struct HeaderDifference {
  std::string path;   ///< "run.noise.sigma", "facts.files[0].sha256"
  std::string there;  ///< its value in the one, as JSON, shortened; "nothing" if it has none
  std::string here;   ///< in the other
};

enum class ShardsMay { kDiffer, kNotDiffer };

/// All fields in which `there` and `here`, two headers, differ, in the order of `here`.
std::vector<HeaderDifference> header_differences(const ResultsHeader& there, const ResultsHeader& here,
                                                 ShardsMay shards);

/// One fact's line.
struct ResultsLine {
  std::string_view text;  ///< without its newline; valid until the next call
  std::uint64_t number;   ///< in the file, from 1; the header is line 1
  std::int64_t order;     ///< the fact's place in the selection, from 1
  std::string status;     ///< "traced", "skipped", "failed", ...
};

/// Reads a batch's results line by line, in memory for one line. Of a line are read its ends and the fields at its
/// beginning, not the numbers of its grids; the lines in the last megabytes of a file, which a power cut can have
/// damaged, and all lines of what is no regular file are read whole.
///
/// Damage at the end of the file, as a killed process (part of a line) or a power cut (zero bytes, pages that are not
/// there) leaves, ends the lines; torn() tells. Damage with good lines behind it is an error, and so is anything that a
/// batch does not write: lines out of order, of another shard, of another kind.
class ResultsReader {
 public:
  /// Reads the next bytes of the file into the buffer; returns their number, 0 only at the end.
  using Read = std::function<std::size_t(std::span<std::byte>)>;

  /// Reads the header. `size`: of a regular file, as it is now; nothing for a pipe. `label` opens the messages,
  /// `advice` ends those that say that the file is of no use. Throws Error: empty, no header.
  ResultsReader(std::string label, std::string advice, Read read, std::optional<std::uint64_t> size);

  const ResultsHeader& header() const { return header_; }
  const std::string& label() const { return label_; }

  /// The next line; nothing at the end. Throws Error.
  std::optional<ResultsLine> next();

  /// Offset in the file of the byte behind the last whole line that was given, or behind the header.
  std::uint64_t whole_end() const { return whole_end_; }

  /// Whether something that is no whole line stands at the end. To be asked after next() gave nothing.
  bool torn() const { return torn_; }

 private:
  struct Raw {
    std::string_view text;
    bool whole = false;  ///< with a newline, and not too long to be a line
  };
  enum class Kind { kGood, kGarbled, kForeign };
  struct Head {
    Kind kind = Kind::kGarbled;
    std::int64_t order = 0;
    std::string status;
  };

  bool fill();
  std::optional<Raw> read_line();
  Head look_at(const Raw& line) const;
  void check_place(std::int64_t order) const;
  void skip_torn_tail();
  [[noreturn]] void refuse(const std::string& found) const;

  std::string label_;
  std::string advice_;
  Read read_;
  std::optional<std::uint64_t> size_;
  ResultsHeader header_;
  std::vector<char> buffer_;
  std::size_t begin_ = 0;  ///< what has been read but not given: [begin_, end_) of the buffer
  std::size_t end_ = 0;
  std::uint64_t offset_ = 0;  ///< in the file, of the byte at begin_
  std::uint64_t number_ = 0;  ///< of the line read last
  std::uint64_t whole_end_ = 0;
  std::int64_t order_ = 0;  ///< of the line given last
  bool torn_ = false;
  bool ended_ = false;
};

}  // namespace rometrace

#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "rometrace/results/line_reader.hpp"

namespace rometrace {

/// A record of a file of traces.
struct ResultRecord {
  nlohmann::ordered_json json;  ///< of schema "rometrace/trace/1", whatever its status; for read_trace_record()
  std::string where;            ///< "results.jsonl, line 3", for messages
  std::int64_t line = 0;        ///< where it begins, from 1
};

/// The records of a file of results one by one, in memory for one however long the file: of a single trace, on one line
/// or printed over many; of a batch, with its header; of several such behind one another, a line each. Blank lines are
/// passed over. A last line that is no JSON is what a batch leaves that is running or was killed: it ends the file, and
/// is told by torn().
class ResultFile {
 public:
  /// Opens the file, "-" for standard input, and reads what stands first. Throws Error: cannot be opened or read, is
  /// empty, begins with something that is no JSON object; Interrupted.
  explicit ResultFile(const std::string& name, std::stop_token stop = {});

  /// The schema of what stands first: "rometrace/trace/1", "rometrace/batch/1", "rometrace/summary/1", ...; empty where
  /// it has none. Nothing is refused for it but by next().
  const std::string& schema() const { return schema_; }

  /// What stands first, before next() was called: all of a file that is one object.
  const nlohmann::ordered_json& first() const { return first_; }

  /// The next trace; nothing at the end. Throws Error naming the line: another schema, with what to do with such a
  /// file; a line that is no JSON object and not the last; Interrupted.
  std::optional<ResultRecord> next();

  /// The header of the batch that the record given last belongs to; null where it stands by itself.
  const nlohmann::ordered_json* header() const { return header_ ? &*header_ : nullptr; }

  /// What was asked of the record given last: its batch's header, or its own "settings"; null where neither is there.
  const nlohmann::ordered_json* settings_of(const ResultRecord& record) const;

  /// What to say where none of the records given so far has the id: that, and the ids that are most like it.
  std::string without_id(const std::string& id) const;

  /// What was left out at the end, as a line for people; empty where nothing was. To be asked once next() gave nothing.
  const std::string& torn() const { return torn_; }

  const std::string& label() const { return lines_.label(); }       ///< the file, as messages show it
  const std::string& name() const { return name_; }                 ///< as it was given
  std::uint64_t bytes_read() const { return lines_.bytes_read(); }  ///< of size(), where that is known
  std::uint64_t size() const { return lines_.size(); }

 private:
  nlohmann::ordered_json read_first();
  std::optional<nlohmann::ordered_json> read_line();
  [[noreturn]] void refuse(const std::string& schema) const;

  std::string name_;
  LineReader lines_;
  std::int64_t line_ = 0;  // where the object read last begins
  nlohmann::ordered_json first_;
  std::string schema_;
  bool first_taken_ = false;
  std::optional<nlohmann::ordered_json> header_;
  std::string torn_;
  std::vector<std::string> ids_;  // of the records given so far
};

}  // namespace rometrace

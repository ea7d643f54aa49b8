#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "rometrace/report/json.hpp"
#include "rometrace/report/record_comparison.hpp"
#include "rometrace/report/terminal.hpp"

namespace rometrace {

/// What became of a record that was to be repeated.
struct RepeatedRecord {
  std::int64_t line = 0;  ///< in the file, from 1
  std::optional<FactReference> fact;
  std::string prompt;
  Status status = Status::kTraced;          ///< that it has; what was skipped has a clean run only
  std::optional<std::string> not_repeated;  ///< why
  RecordComparison comparison = {};
  double seconds = 0;
};

/// What `rometrace repeat` found of a file.
struct RepeatReport {
  std::string file;
  std::string written_by;  ///< rometrace's version
  ModelRecord model;       ///< that was run
  RunRecord run;           ///< of the first record, as it was run now; seconds of all
  Rounding rounding;
  bool facts_checked = false;  ///< the facts files have the fingerprints that the file's header names
  std::vector<RepeatedRecord> records;

  std::int64_t equal() const;
  std::int64_t different() const;
  std::int64_t not_repeated() const;
  std::int64_t identical() const;  ///< of the equal ones, to the last bit
  /// The record with the largest difference; null where there is none.
  const RepeatedRecord* largest() const;
};

/// The report as an object of schema "rometrace/repeat/1" (share/rometrace/schema/repeat-1.schema.json). Of a record's
/// cells that differ beyond rounding the first hundred are listed.
nlohmann::ordered_json to_json(const RepeatReport& report);

/// For people: how many are equal, the largest difference, and of records that are not what differs. Lines end in "\n"
/// and are no wider than `style.columns`, which counts as 40 at least.
std::string render_repeat(const RepeatReport& report, const TerminalStyle& style);

}  // namespace rometrace

#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "rometrace/report/json.hpp"
#include "rometrace/report/terminal.hpp"

namespace rometrace {

/// What there is to say of one layer's second moment C.
struct MomentSummary {
  std::int64_t layer = 0;
  std::int64_t width = 0;           ///< F
  double trace = 0;                 ///< of C
  double frobenius = 0;             ///< its norm
  double ridge = 0;                 ///< what is added to the diagonal before it is solved with
  std::optional<double> condition;  ///< of C with that ridge; none: it is singular
  bool cached = false;              ///< known before this run
  std::string file;                 ///< where it is
};

/// All that the result of `rometrace moments` records.
struct MomentsRecord {
  ModelRecord model;
  RunRecord run;
  std::string text;         ///< the files' names
  std::string text_sha256;  ///< of the texts that count, a line feed behind each
  std::int64_t texts = 0;
  std::int64_t tokens = 0;
  std::int64_t cut = 0;        ///< tokens of a text at most
  std::int64_t cut_texts = 0;  ///< texts that had more
  bool whole = true;           ///< whether all texts of the files count
  std::vector<MomentSummary> layers;
  std::vector<std::string> warnings;
};

/// The record as an object of schema "rometrace/moments/1" (share/rometrace/schema/moments-1.schema.json).
nlohmann::ordered_json to_json(const MomentsRecord& record);

/// As a table for a terminal, lines of at most `style.columns` where it is 60 or more.
std::string render_moments(const MomentsRecord& record, const TerminalStyle& style);

}  // namespace rometrace

#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "rometrace/report/token_texts.hpp"
#include "rometrace/trace/trace.hpp"

namespace rometrace {

/// The model, as the result records it.
struct ModelRecord {
  std::string name;          ///< as the user gave it; "rometrace-demo" for the one shipped
  std::string architecture;  ///< config.json's
  std::int64_t layers = 0;
  std::int64_t width = 0;
  std::int64_t heads = 0;
  std::int64_t parameters = 0;
  std::string weights_sha256;  ///< see weights_sha256()
};

/// How it was run.
struct RunRecord {
  std::string device = "cpu";
  std::string dtype = "float32";
  int threads = 1;
  std::string engine = "plain";
  std::string noise_rule = "s3";  ///< as the user gave it
  double seconds = 0;             ///< the trace alone: no loading, no writing
};

/// All that a result records.
struct TraceRecord {
  Trace trace;
  TracePrompt prompt;
  TraceOptions options;
  TokenTexts texts;
  ModelRecord model;
  RunRecord run;
};

/// The result as an object of schema "rometrace/trace/1" (share/rometrace/schema/trace-1.schema.json).
/// Text that is not UTF-8 on its own (a character split over tokens) has U+FFFD in `tokens`, `answer` and `prediction`;
/// `token_bytes`, `answer_bytes` and `prediction_bytes` hold the bytes in hex, so that nothing is lost. A number that
/// does not exist (the standard error of a single draw) is null.
nlohmann::ordered_json to_json(const TraceRecord& record);

/// The record of a prompt whose prediction is not the expected answer: status "skipped", the reason, and nothing that
/// needs a corrupted run (low_score, total_effect, grids); of `record.trace` only the clean run's numbers are read.
nlohmann::ordered_json to_json_skipped(const TraceRecord& record, const std::string& reason);

/// One line of strict JSON in UTF-8, without a final newline. Each number reads back as exactly the same double.
std::string to_line(const nlohmann::ordered_json& json);

}  // namespace rometrace

#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "rometrace/facts/facts.hpp"
#include "rometrace/report/json.hpp"
#include "rometrace/study/probe.hpp"
#include "rometrace/summary/probe_summary.hpp"

namespace rometrace {

/// All that a line about a probed fact records.
struct ProbeRecord {
  FactReference fact;
  std::string subject;            ///< of the fact; empty where its record is damaged
  std::vector<Wording> wordings;  ///< of the fact
  ProbeResult result;
  KnownRule rule;
  ModelRecord model;
  RunRecord run;  ///< device, dtype, threads and seconds are written; seconds: this fact's part of its chunk's time
};

/// The record as an object of schema "rometrace/probe/1" (share/rometrace/schema/probe-1.schema.json). Of a fact that
/// was skipped or failed, nothing that needs a run of the model. Text that is not UTF-8 is written as in trace records.
nlohmann::ordered_json to_json(const ProbeRecord& record);

/// The rule as the lines and a results file's header hold it: {"rule": "said:2", "measure": "said", "wordings": 2,
/// "rank": null}.
nlohmann::ordered_json to_json(const KnownRule& rule);

/// The summary as an object of schema "rometrace/probe-summary/1"; `files` are the names of what was read.
nlohmann::ordered_json to_json(const ProbeSummary& summary, const std::vector<std::string>& files);

}  // namespace rometrace

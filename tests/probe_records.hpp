#pragma once

#include <string>
#include <vector>

#include "rometrace/report/probe_json.hpp"

namespace rometrace::testing {

/// A probed fact of these ranks, the last `held_out` wordings held out; the prompts are "S asks", "S asks again", ...
inline ProbeRecord probe_record(const std::string& relation, const std::vector<std::int64_t>& ranks,
                                std::size_t held_out = 0) {
  ProbeRecord record;
  record.fact.record = 17;
  record.fact.id = "16";
  record.fact.id_is_number = true;
  record.subject = "S";
  record.fact.relation = relation;
  record.fact.object = "trumpet";
  record.fact.order = 3;
  record.fact.object_tokens = 1;
  record.result.object_tokens = 1;
  record.result.object_id = 5;
  record.result.object_token = " trumpet";
  record.result.candidates = 4;
  record.result.alike = 1;
  std::string prompt = "S asks";
  for (std::size_t i = 0; i < ranks.size(); ++i) {
    record.wordings.push_back({prompt, i + held_out >= ranks.size(), {0, 1}});
    prompt += " again";
    ProbedWording wording;
    wording.probability = 1.0 / static_cast<double>(2 * ranks[i]);
    wording.rank = ranks[i];
    wording.choice_rank = (ranks[i] + 1) / 2;
    wording.said = ranks[i] == 1;
    wording.answer_id = wording.said ? 5 : 6;
    wording.answer = wording.said ? " trumpet" : "\xE3\x83";
    wording.answer_probability = 0.5;
    record.result.wordings.push_back(wording);
  }
  record.model = {"demo", "GPT2LMHeadModel", 3, 4, 2, 1234, std::string(64, '0'), {}};
  record.run.seconds = 0.25;
  return record;
}

/// The same, failed.
inline ProbeRecord failed_probe_record() {
  auto record = probe_record("plays", {1});
  record.result = {};
  record.fact.object_tokens.reset();
  record.result.status = ProbeResult::Status::kFailed;
  record.result.cause = "prompt";
  record.result.reason = "too long";
  return record;
}

}  // namespace rometrace::testing

#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace rometrace {

/// What became of a fact.
enum class Status {
  kTraced,
  kSkipped,  ///< an expected outcome, such as a model that answers otherwise
  kFailed,   ///< a fact that cannot be traced
};
std::string_view to_string(Status status);  ///< "traced", "skipped", "failed"

/// Why it was not traced.
enum class Cause {
  kOtherAnswer,  ///< skipped: the model's answer is not the object
  kFirstToken,   ///< skipped: it is only the first token of an object of several
  kNotKnown,     ///< skipped: not known by the rule of --only known
  kNoObject,     ///< skipped: an object was to be followed, and the fact has none
  kNoPartner,    ///< skipped: a subject to swap with was wanted, and no other fact has one that fits
  kRecord,       ///< failed: the record in the facts file is damaged
  kSubject,      ///< failed: no token of the prompt is the subject's
  kPrompt,       ///< failed: the prompt cannot be tokenised or is longer than the model takes
  kTrace,        ///< failed: the run ended in something that is not a number
};
std::string_view to_string(Cause cause);  ///< "other_answer", "first_token", ...: the words of the results file

struct Verdict {
  Status status = Status::kTraced;
  std::optional<Cause> cause;  ///< none where it was traced
  std::string reason;          ///< one line for people; empty where it was traced

  static Verdict skipped(Cause cause, std::string reason) { return {Status::kSkipped, cause, std::move(reason)}; }
  static Verdict failed(Cause cause, std::string reason) { return {Status::kFailed, cause, std::move(reason)}; }
};

/// Which fact a result is of.
struct FactReference {
  std::int64_t record = 0;  ///< number in the facts files, from 1
  std::int64_t order = 0;   ///< number in the selection, from 1
  std::string id;           ///< empty: unknown, as the record is damaged
  bool id_is_number = false;
  std::optional<std::string> relation;
  std::optional<std::string> object;
  std::optional<std::int64_t> object_tokens;  ///< of " " + object; none: no object, or not tokenised
};

}  // namespace rometrace

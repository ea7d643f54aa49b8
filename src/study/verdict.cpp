#include "rometrace/study/verdict.hpp"

namespace rometrace {

std::string_view to_string(Status status) {
  switch (status) {
    case Status::kTraced:
      return "traced";
    case Status::kSkipped:
      return "skipped";
    case Status::kFailed:
      return "failed";
  }
  return "unknown";
}

std::string_view to_string(Cause cause) {
  switch (cause) {
    case Cause::kOtherAnswer:
      return "other_answer";
    case Cause::kFirstToken:
      return "first_token";
    case Cause::kNotKnown:
      return "not_known";
    case Cause::kNoObject:
      return "no_object";
    case Cause::kNoPartner:
      return "no_partner";
    case Cause::kRecord:
      return "record";
    case Cause::kSubject:
      return "subject";
    case Cause::kPrompt:
      return "prompt";
    case Cause::kTrace:
      return "trace";
  }
  return "unknown";
}

}  // namespace rometrace

#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "rometrace/report/json.hpp"
#include "rometrace/trace/trace.hpp"

namespace rometrace {

/// A file in the layout of the ROME authors' experiments/causal_trace.py.
struct CaseFile {
  std::string name;   ///< "knowledge_12_mlp.npz"
  std::string bytes;  ///< as numpy.savez writes it
};

/// What a record leaves in that layout.
struct CaseFiles {
  std::vector<CaseFile> files;  ///< of states, MLPs and attention, as far as they were traced
  std::string left_out;         ///< why there are none, such as "noising"; empty where there are some
};

/// The files of a record. A traced one gives for each of its grids of states, MLPs and attention the fields that
/// docs/formats.md lists; one that was skipped because the answer was another gives `correct_prediction` alone, in a
/// file for each kind that `settings` ask for: a batch's header or a record's "settings", null where there are none.
/// Left out are records that failed or were skipped for something else, and those that the layout cannot tell from what
/// it holds: noising, approximations, grids of some positions alone, other kinds. Throws Error: an id whose name no
/// file can have.
CaseFiles case_files(const TraceRecord& record, std::string_view id, const nlohmann::ordered_json* settings);

/// "knowledge_12.npz" for states, "knowledge_12_mlp.npz", "knowledge_12_attn.npz". Of the id each byte but ASCII
/// letters, digits, "-", "." and "_" becomes "%" and two hexadecimal digits, and so does the "_" of a "_mlp" or "_attn"
/// at its end, so that each id has names of its own. Throws Error if that is longer than a file's name may be.
std::string case_name(std::string_view id, Kind kind);

}  // namespace rometrace

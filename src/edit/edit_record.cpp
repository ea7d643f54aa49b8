#include "edit/edit_record.hpp"

#include <cmath>
#include <cstring>
#include <map>
#include <set>
#include <string_view>
#include <utility>

#include "model/safetensors_header.hpp"
#include "rometrace/error.hpp"
#include "rometrace/text/input_file.hpp"
#include "rometrace/text/json_file.hpp"
#include "text/json_shown.hpp"

namespace rometrace {
namespace {

using nlohmann::json;

bool is_digest(const json& value) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  if (!value.is_string()) return false;
  const auto& text = value.get_ref<const std::string&>();
  return text.size() == 64 && text.find_first_not_of(kDigits) == std::string::npos;
}

/// A value inside the record, with its path for messages.
class Field {
 public:
  Field(const json& value, std::string where) : value_(value), where_(std::move(where)) {}

  const json& value() const { return value_; }

  [[noreturn]] void refuse(const std::string& expected) const {
    throw Error(where_ + " is " + shown(value_) + "; expected " + expected);
  }

  Field operator[](const char* name) const {
    if (!value_.is_object()) refuse("an object");
    const auto found = value_.find(name);
    if (found == value_.end()) throw Error(where_ + " has no " + in_quotes(name) + "; expected one");
    return {*found, where_ + (where_.ends_with(' ') ? "" : ".") + name};
  }

  std::vector<Field> items(std::size_t least) const {
    if (!value_.is_array() || value_.size() < least) refuse(least == 0 ? "a list" : "a list of at least one");
    std::vector<Field> items;
    for (std::size_t i = 0; i < value_.size(); ++i)
      items.emplace_back(value_[i], where_ + "[" + std::to_string(i) + "]");
    return items;
  }

  std::string text() const {
    if (!value_.is_string()) refuse("text");
    return value_.get<std::string>();
  }

  std::string name() const {
    auto name = text();
    if (name.empty()) refuse("a name");
    return name;
  }

  std::string digest() const {
    if (!is_digest(value_)) refuse("a SHA-256, 64 lower-case hex digits");
    return value_.get<std::string>();
  }

  std::int64_t whole() const {
    constexpr std::int64_t kMost = std::int64_t{1} << 53;  // what any JSON reader keeps
    if (!value_.is_number_integer() || value_ < 0 || value_ > kMost) refuse("a whole number from 0 up");
    return value_.get<std::int64_t>();
  }

  double norm() const {
    if (!value_.is_number() || !(value_.get<double>() >= 0) || !std::isfinite(value_.get<double>())) {
      refuse("a number from 0 up");
    }
    return value_.get<double>();
  }

  void object() const {
    if (!value_.is_object()) refuse("an object");
  }

 private:
  const json& value_;
  std::string where_;
};

ModelRecord read_model(const Field& model) {
  ModelRecord record;
  record.name = model["name"].text();
  record.architecture = model["architecture"].text();
  record.layers = model["layers"].whole();
  record.width = model["width"].whole();
  record.heads = model["heads"].whole();
  record.parameters = model["parameters"].whole();
  record.weights_sha256 = model["weights_sha256"].digest();
  return record;
}

void check_request(const Field& request) {
  request["prompt"].name();
  request["subject"].name();
  request["objects"]["new"].name();
  const auto old = request["objects"]["old"];
  if (!old.value().is_null()) old.name();
}

MatrixRecord read_matrix(const Field& field) {
  MatrixRecord matrix;
  matrix.tensor = field["tensor"].name();
  matrix.layer = field["layer"].whole();
  matrix.sha256_before = field["sha256_before"].digest();
  matrix.sha256_after = field["sha256_after"].digest();
  matrix.change_norm = field["change_norm"].norm();
  matrix.original_norm = field["original_norm"].norm();
  return matrix;
}

void check_schema(const json& record, const std::string& label) {
  const Field schema = Field(record, label + ": record ")["schema"];
  if (schema.value() == kEditSchema) return;
  const bool other_version = schema.value().is_string() && schema.text().starts_with("rometrace/edit/");
  throw Error(label + ": is of schema " + shown(schema.value()) + "; expected \"" + kEditSchema + "\"" +
              (other_version ? ": another version of rometrace made it" : ""));
}

EditDetails read_details(const json& record, const std::string& label) {
  const Field fields(record, label + ": record ");
  EditDetails details;
  details.method = fields["method"].name();
  for (const auto& item : fields["templates"].items(0)) {
    details.templates.push_back(item.text());
    if (details.templates.back().find("{}") == std::string::npos) item.refuse("text with {} where the prompt stands");
  }
  if (const auto seed = fields["seed"]; !seed.value().is_null()) details.seed = seed.whole();
  fields["hyperparameters"].object();
  if (const auto moment = fields["moment"]; !moment.value().is_null()) {
    details.moment = EditMoment{moment["name"].text(), moment["sha256"].digest(), moment["tokens"].whole()};
  }
  details.model = read_model(fields["model"]);
  for (const auto& item : fields["made_on"].items(0)) details.made_on.push_back(item.digest());
  for (const auto& item : fields["requests"].items(1)) check_request(item);
  return details;
}

bool all_finite(std::span<const std::byte> bytes) {
  for (std::size_t i = 0; i + sizeof(float) <= bytes.size(); i += sizeof(float)) {
    float number = 0;  // the file promises no alignment
    std::memcpy(&number, bytes.data() + i, sizeof number);
    if (!std::isfinite(number)) return false;
  }
  return true;
}

TensorView checked_factor(const TensorView& view, std::size_t rank, const std::string& where) {
  const auto n = static_cast<std::int64_t>(rank);
  if (view.dtype != "F32" || view.shape.size() != 2 || view.shape.front() != n || view.shape.back() < 1) {
    throw Error(where + " is " + view.dtype + " " + shape_text(view.shape) + "; expected F32 [" + std::to_string(n) +
                ",...], a row for each request");
  }
  if (!all_finite(view.bytes)) throw Error(where + " holds a number that is not finite; expected none");
  return view;
}

void find_factors(const std::vector<TensorView>& tensors, const std::string& label, EditRecord& record) {
  std::map<std::string_view, const TensorView*> by_name;
  for (const auto& tensor : tensors) by_name.emplace(tensor.name, &tensor);
  std::set<std::string> named;
  for (auto& matrix : record.matrices) {
    if (!named.insert(matrix.tensor).second) {
      throw Error(label + ": the record has the matrix " + in_quotes(matrix.tensor) + " twice; expected each once");
    }
    const auto take = [&](const char* ending) {
      const auto name = matrix.tensor + ending;
      const auto found = by_name.find(name);
      if (found == by_name.end()) {
        throw Error(label + ": has no tensor " + in_quotes(name) + ", which the record's matrix needs");
      }
      const auto* view = found->second;
      by_name.erase(found);
      return checked_factor(*view, record.details.requests.size(), label + ": tensor " + in_quotes(name));
    };
    matrix.u = take(kEndingOfU);
    matrix.r = take(kEndingOfR);
  }
  if (!by_name.empty()) {
    throw Error(label + ": tensor " + in_quotes(by_name.begin()->first) +
                " is neither u nor r of a matrix in the record; expected no others");
  }
}

}  // namespace

EditRecord read_edit_record(std::span<const std::byte> bytes, const std::string& label) {
  const auto content = read_safetensors(bytes, label);
  const auto text = content.metadata.find(kEditMetadataKey);
  if (text == content.metadata.end()) {
    throw Error(label + ": has no record under \"" + kEditMetadataKey +
                "\"; expected an edit file, as rometrace edit -o makes it");
  }
  const auto parsed = parse_json(text->second, label + ": record", RepeatedNames::kRefuse);
  check_schema(parsed, label);
  EditRecord record;
  record.details = read_details(parsed, label);
  for (const auto& item : Field(parsed, label + ": record ")["matrices"].items(1)) {
    record.matrices.push_back(read_matrix(item));
  }
  record.json = nlohmann::ordered_json::parse(text->second);
  record.details.hyperparameters = record.json["hyperparameters"];
  record.details.requests = record.json["requests"];
  record.details.perplexity = record.json.value("perplexity", nlohmann::ordered_json());
  record.details.seconds = record.json.value("seconds", nlohmann::ordered_json());
  find_factors(content.tensors, label, record);
  return record;
}

}  // namespace rometrace

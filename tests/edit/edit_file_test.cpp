#include "rometrace/edit/edit_file.hpp"

#include <ATen/ops/equal.h>

#include <cmath>
#include <functional>
#include <limits>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "checks.hpp"
#include "edits.hpp"
#include "files.hpp"
#include "random_model.hpp"
#include "rometrace/edit/edit_stack.hpp"
#include "rometrace/error.hpp"

namespace rometrace::edit_file_test {
namespace {

using testing::Contains;
using testing::message_of;
using testing::random_edit;
using testing::TemporaryFolder;

/// A small model, and an edit of two requests in both of its layers.
struct Edited {
  Edited() {
    write_random_model(folder, {}, engine);
    model = Decoder::load(folder.path());
  }
  Edit make(const std::vector<std::int64_t>& layers = {0, 1}, std::int64_t n = 2) {
    return random_edit(*model, layers, n, engine);
  }
  EditStack stack(const std::vector<Edit>& edits) const {
    std::vector<std::filesystem::path> paths;
    for (std::size_t i = 0; i < edits.size(); ++i) {
      paths.push_back(folder.write(std::to_string(i + 1) + ".edit", edit_file_bytes(edits[i])));
    }
    return EditStack::read(paths);
  }
  /// An edit that was made with those before it in place.
  Edit on_top(const std::vector<Edit>& before, const std::vector<std::int64_t>& layers) {
    const auto under = stack(before);
    LoadOptions how;
    how.changes = under.changes();
    auto edit = random_edit(*Decoder::load(folder.path(), how), layers, 1, engine);
    edit.made_on = under.hashes();
    return edit;
  }

  std::mt19937 engine{1};
  TemporaryFolder folder;
  std::shared_ptr<const Decoder> model;
};

EditFile parse(const std::string& bytes) {
  return parse_edit_file(std::as_bytes(std::span(bytes)), "miles.edit");
}

TEST_CASE("an edit file gives back the edit, and the record as it was written") {
  Edited edited;
  auto edit = edited.make();
  edit.made_on = {std::string(64, 'a')};
  edit.requests[0]["losses"] = {{"nll", {2.5, 0.1}}};
  const auto file = read_edit_file(edited.folder.write("miles.edit", edit_file_bytes(edit)));
  CHECK(file.label == (edited.folder.path() / "miles.edit").string());
  CHECK(file.record == to_json(edit));
  CHECK(file.record.dump() == to_json(edit).dump());  // the order too
  CHECK(to_json(file.edit).dump() == to_json(edit).dump());
  CHECK(file.sha256 == weights_sha256(std::vector{edited.folder.path() / "miles.edit"}));
  for (std::size_t i = 0; i < 2; ++i) {
    const auto &change = file.edit.matrices[i].change, &expected = edit.matrices[i].change;
    CHECK(at::equal(change.u, expected.u));
    CHECK(at::equal(change.r, expected.r));
    CHECK(change.source == file.label);
  }
  const auto mark = file.mark();
  CHECK(mark.sha256 == file.sha256);
  CHECK(mark.method == "r-rome");
  CHECK(mark.layers == std::vector<std::int64_t>{0, 1});
  CHECK(mark.requests == 2);

  edit.seed.reset();
  edit.moment.reset();
  edit.templates.clear();
  CHECK(to_json(parse(edit_file_bytes(edit)).edit) == to_json(edit));
}

std::string refusal_of_bytes(const std::string& bytes) {
  auto message = message_of<Error>([&] { parse(bytes); });
  CHECK(testing::is_one_line(message));
  CHECK(message.starts_with("miles.edit: "));
  return message;
}

TEST_CASE("every beginning of an edit file is refused") {
  Edited edited;
  const auto bytes = edit_file_bytes(edited.make({0}, 1));
  for (std::size_t length = 1; length < bytes.size(); length += length < 600 ? 1 : 37) {
    const std::string part = bytes.substr(0, length);
    const auto message = refusal_of_bytes(part);
    CHECK(message != "(nothing thrown)");
  }
}

/// A file whose record is changed.
std::string with_record(const Edit& edit, const std::function<void(nlohmann::ordered_json&)>& spoil) {
  auto bytes = edit_file_bytes(edit);
  std::uint64_t length = 0;
  for (unsigned i = 8; i-- > 0;) length = length << 8U | static_cast<unsigned char>(bytes[i]);
  auto header = nlohmann::json::parse(bytes.substr(8, length));
  auto record = to_json(edit);
  spoil(record);
  header["__metadata__"]["rometrace"] = record.dump();
  return testing::safetensors_bytes(header.dump(), bytes.substr(8 + length));
}

TEST_CASE("a record that lacks a field, or has another thing in its place, is refused by the field's path") {
  using Json = nlohmann::ordered_json;
  Edited edited;
  const auto edit = edited.make();
  const auto refusal = [&](const std::function<void(Json&)>& spoil) {
    return refusal_of_bytes(with_record(edit, spoil));
  };
  for (const char* name : {"schema", "method", "templates", "seed", "hyperparameters", "moment", "model", "made_on",
                           "requests", "matrices"}) {
    CHECK(refusal([&](Json& record) { record.erase(name); }) == Contains("has no \"" + std::string(name) + "\""));
  }
  for (const char* name : {"name", "architecture", "layers", "width", "heads", "parameters", "weights_sha256"}) {
    CHECK(refusal([&](Json& record) { record["model"].erase(name); }) ==
          Contains("record model has no \"" + std::string(name)));
  }
  const std::vector<std::pair<std::string, std::function<void(Json&)>>> cases = {
      {"is of schema \"rometrace/edit/2\"; expected \"rometrace/edit/1\": another version",
       [](Json& record) { record["schema"] = "rometrace/edit/2"; }},
      {"is of schema 1;", [](Json& record) { record["schema"] = 1; }},
      {"record method is \"\"; expected a name", [](Json& record) { record["method"] = ""; }},
      {"record templates[0] is \"no place\"; expected text with {}",
       [](Json& record) { record["templates"][0] = "no place"; }},
      {"record seed is -1; expected a whole number", [](Json& record) { record["seed"] = -1; }},
      {"record hyperparameters is [];", [](Json& record) { record["hyperparameters"] = Json::array(); }},
      {"record moment.sha256 is \"00\"; expected a SHA-256", [](Json& record) { record["moment"]["sha256"] = "00"; }},
      {"record model is 3; expected an object", [](Json& record) { record["model"] = 3; }},
      {"record model.layers is 1.5;", [](Json& record) { record["model"]["layers"] = 1.5; }},
      {"record made_on[0] is \"x\";", [](Json& record) { record["made_on"] = {"x"}; }},
      {"record requests is []; expected a list of at least one",
       [](Json& record) { record["requests"] = Json::array(); }},
      {"record requests[1] has no \"subject\"", [](Json& record) { record["requests"][1].erase("subject"); }},
      {"record requests[0].objects.new is null; expected text",
       [](Json& record) { record["requests"][0]["objects"]["new"] = nullptr; }},
      {"record matrices is [];", [](Json& record) { record["matrices"] = Json::array(); }},
      {"record matrices[1].layer is \"1\";", [](Json& record) { record["matrices"][1]["layer"] = "1"; }},
      {"record matrices[0].change_norm is -0.5; expected a number",
       [](Json& record) { record["matrices"][0]["change_norm"] = -0.5; }},
      {"twice", [](Json& record) { record["matrices"][1]["tensor"] = record["matrices"][0]["tensor"]; }},
      {"has no tensor \"other.u\"", [](Json& record) { record["matrices"][1]["tensor"] = "other"; }},
      {"is neither u nor r", [](Json& record) { record["matrices"].erase(1); }},
      {"expected F32 [1,...], a row for each request", [](Json& record) { record["requests"].erase(1); }},
  };
  for (const auto& [expected, spoil] : cases) CHECK(refusal(spoil) == Contains(expected));
  // What a later version adds is let be.
  CHECK_NOTHROW(parse(with_record(edit, [](Json& record) { record["later"] = 1; })));
}

TEST_CASE("numbers that are not finite, and files of something else, are refused") {
  Edited edited;
  auto edit = edited.make();
  for (const float value : {std::nanf(""), std::numeric_limits<float>::infinity()}) {
    edit.matrices[1].change.r.data_ptr<float>()[3] = value;
    CHECK(refusal_of_bytes(edit_file_bytes(edit)) ==
          Contains("tensor \"transformer.h.1.mlp.c_proj.weight.r\" holds a number that is not finite"));
  }
  CHECK(refusal_of_bytes(testing::safetensors_bytes("{}", "")) == Contains("has no record under \"rometrace\""));
  CHECK(refusal_of_bytes(testing::safetensors_bytes(R"({"__metadata__":{"rometrace":"{"}})", "")) ==
        Contains("record: "));
  CHECK(refusal_of_bytes(testing::safetensors_bytes(R"({"__metadata__":{"rometrace":"[]"}})", "")) ==
        Contains("expected an object"));
  CHECK(message_of<Error>([&] { read_edit_file(edited.folder.path() / "none.edit"); }) == Contains("no such file"));
}

TEST_CASE("an edit goes on top of exactly those that it was made on") {
  Edited edited;
  const auto first = edited.make({0}, 1), other = edited.make({1}, 1);
  const auto second = edited.on_top({first}, {0});
  const auto third = edited.on_top({first, second}, {0, 1});
  const auto stack = edited.stack({first, second, third});
  CHECK(stack.notes().empty());
  CHECK(stack.changes().size() == 4);
  CHECK(stack.marks().size() == 3);
  CHECK(stack.marks()[2].sha256 == stack.hashes()[2]);
  LoadOptions how;
  how.changes = stack.changes();
  CHECK_NOTHROW(Decoder::load(edited.folder.path(), how));

  const auto refusal = [&](const std::vector<Edit>& edits) {
    auto message = message_of<Error>([&] { edited.stack(edits); });
    CHECK(testing::is_one_line(message));
    return message;
  };
  CHECK(refusal({second}) == Contains("1.edit: was made on one edit, of which the file with SHA-256 " +
                                      stack.hashes()[0] + " is not given before it"));
  CHECK(refusal({second, first}) == Contains("is not given before it"));
  CHECK(refusal({first, third}) ==
        Contains("was made on 2 edits, of which the file with SHA-256 " + stack.hashes()[1]));
  CHECK(refusal({first, other, second}) == Contains("3.edit: was made on one edit, and comes after 2 here"));
  CHECK(refusal({first, first}) == Contains("2.edit: is the same edit as"));
}

TEST_CASE("edits that were both made on the original go together where they change different tensors, which is said") {
  Edited edited;
  const auto first = edited.make({0}, 1), other = edited.make({1}, 2), both = edited.make({0, 1}, 1);
  const auto stack = edited.stack({first, other});
  CHECK(stack.notes().size() == 1);
  CHECK(stack.notes()[0] == Contains("2.edit was made on the original weights, without"));
  CHECK(stack.notes()[0] == Contains("were not measured together"));
  CHECK(message_of<Error>([&] {
          edited.stack({first, both});
        }) == Contains("changes tensor \"transformer.h.0.mlp.c_proj.weight\", as"));
}

TEST_CASE("edits are of one model, and of the one that they are applied to") {
  Edited edited;
  auto first = edited.make({0}, 1), other = edited.make({1}, 1);
  const auto weights = first.model.weights_sha256;
  CHECK_NOTHROW(edited.stack({first}).check_weights(weights));
  CHECK(message_of<Error>([&] { edited.stack({first}).check_weights(std::string(64, '0')); }) ==
        Contains("was made for other weights, of \"tiny\": SHA-256 " + weights + "; this model's is 0000"));
  other.model.weights_sha256 = std::string(64, '0');
  CHECK(message_of<Error>([&] { edited.stack({first, other}); }) == Contains("expected edits of one model"));
}

}  // namespace
}  // namespace rometrace::edit_file_test

#include "rometrace/facts/shard.hpp"

#include <map>
#include <string>
#include <vector>

#include "checks.hpp"
#include "files.hpp"
#include "rometrace/error.hpp"

namespace rometrace::shard_test {
namespace {

using testing::Contains;
using testing::message_of;

using Variables = std::map<std::string, std::string>;

Environment environment_of(const Variables& variables) {
  return [&](const char* name) {
    const auto found = variables.find(name);
    return found == variables.end() ? nullptr : found->second.c_str();
  };
}

ShardFound in(const Variables& variables) {
  return shard_from_environment(environment_of(variables));
}

std::string refusal(const Variables& variables) {
  return message_of<Error>([&] { in(variables); });
}

TEST_CASE("the shards of a selection hold each fact once") {
  for (const std::int64_t count : {1, 2, 3, 7, 20}) {
    std::int64_t facts = 0;
    for (std::int64_t order = 1; order <= 17; ++order) {
      int holders = 0;
      for (std::int64_t index = 1; index <= count; ++index) holders += Shard{index, count}.holds(order) ? 1 : 0;
      CHECK(holders == 1);
    }
    for (std::int64_t index = 1; index <= count; ++index) {
      const Shard shard{index, count};
      std::int64_t held = 0;
      for (std::int64_t order = 1; order <= 17; ++order) held += shard.holds(order) ? 1 : 0;
      CHECK(shard.size(17) == held);
      facts += held;
    }
    CHECK(facts == 17);
  }
  CHECK_FALSE(Shard{1, 2}.holds(0));
  CHECK_FALSE(Shard{1, 2}.holds(-1));
}

TEST_CASE("I/N is read") {
  CHECK(parse_shard("1/1") == Shard{1, 1});
  CHECK(parse_shard("2/4") == Shard{2, 4});
  CHECK(parse_shard("1000/1000") == Shard{1000, 1000});
  CHECK(to_string(parse_shard("2/4")) == "2/4");
}

TEST_CASE("what is no I/N is refused in one line") {
  for (const char* text : {"",
                           "/",
                           "1",
                           "1/",
                           "/4",
                           "0/4",
                           "5/4",
                           "-1/4",
                           "1/-4",
                           "1/4/5",
                           " 1/4",
                           "1 / 4",
                           "1/4 ",
                           "+1/4",
                           "1.0/4",
                           "a/b",
                           "99999999999999999999/4",
                           "1/99999999999999999999",
                           "1\n/4",
                           "0/0"}) {
    const std::string message = message_of<Error>([&] { parse_shard(text); });
    CHECK(message == Contains("expected I/N with I from 1 to N, such as 1/4, or auto"));
    CHECK(testing::is_one_line(message));
  }
}

TEST_CASE("each launcher's rank from 0 is a shard from 1") {
  CHECK(in({{"SLURM_PROCID", "0"}, {"SLURM_NTASKS", "4"}}).shard == Shard{1, 4});
  CHECK(in({{"OMPI_COMM_WORLD_RANK", "3"}, {"OMPI_COMM_WORLD_SIZE", "4"}}).shard == Shard{4, 4});
  CHECK(in({{"PMI_RANK", "1"}, {"PMI_SIZE", "2"}}).shard == Shard{2, 2});
  CHECK(in({{"RANK", "1"}, {"WORLD_SIZE", "8"}}).shard == Shard{2, 8});
  const auto torchrun = in({{"RANK", "1"}, {"WORLD_SIZE", "8"}, {"TORCHELASTIC_RUN_ID", "none"}});
  CHECK(torchrun.shard == Shard{2, 8});
  CHECK(torchrun.source == "torchrun (RANK 1 of 8)");
  CHECK(in({{"SLURM_PROCID", "2"}, {"SLURM_NTASKS", "4"}}).source == "Slurm (SLURM_PROCID 2 of 4)");
}

TEST_CASE("mpirun and torchrun inside a Slurm job come before Slurm, and a RANK that anybody set after it") {
  const Variables slurm = {{"SLURM_JOB_ID", "7"}, {"SLURM_PROCID", "0"}, {"SLURM_NTASKS", "1"}};
  Variables both = slurm;
  both.insert({{"OMPI_COMM_WORLD_RANK", "1"}, {"OMPI_COMM_WORLD_SIZE", "2"}});
  CHECK(in(both).shard == Shard{2, 2});
  // A job of four tasks whose script calls mpirun: the script's own rank is 0 of 4 in all of its processes.
  both["SLURM_NTASKS"] = "4";
  CHECK(in(both).shard == Shard{2, 2});
  both.insert({{"RANK", "5"}, {"WORLD_SIZE", "6"}});
  CHECK(in(both).shard == Shard{2, 2});
  both["TORCHELASTIC_RUN_ID"] = "none";
  CHECK(in(both).shard == Shard{6, 6});
  CHECK(in({{"SLURM_PROCID", "1"}, {"SLURM_NTASKS", "4"}, {"RANK", "5"}, {"WORLD_SIZE", "6"}}).shard == Shard{2, 4});
}

TEST_CASE("PMIx has no size of its own, so the launcher's variables count") {
  CHECK(in({{"PMIX_RANK", "1"},
            {"SLURM_PROCID", "1"},
            {"SLURM_NTASKS", "2"},
            {"SLURM_JOB_ID", "7"},
            {"SLURM_STEP_ID", "0"}})
            .shard == Shard{2, 2});
  CHECK(refusal({{"PMIX_RANK", "1"}}) == Contains("no rank in the environment"));
}

TEST_CASE("the local rank is the launcher's, which is looked for in the order of ranks") {
  const auto local = [](const Variables& variables) -> std::string {
    const auto found = local_rank_from_environment(environment_of(variables));
    return found ? std::to_string(found->rank) + " " + found->source : "none";
  };
  CHECK(local({}) == "none");
  CHECK(local({{"SLURM_PROCID", "5"}, {"RANK", "5"}}) == "none");
  const Variables slurm = {{"SLURM_JOB_ID", "7"}, {"SLURM_STEP_ID", "0"}, {"SLURM_LOCALID", "3"}};
  CHECK(local(slurm) == "3 SLURM_LOCALID");
  CHECK(local({{"OMPI_COMM_WORLD_LOCAL_RANK", "2"}}) == "2 OMPI_COMM_WORLD_LOCAL_RANK");
  CHECK(local({{"MPI_LOCALRANKID", "1"}}) == "1 MPI_LOCALRANKID");
  CHECK(local({{"MV2_COMM_WORLD_LOCAL_RANK", "1"}}) == "1 MV2_COMM_WORLD_LOCAL_RANK");
  CHECK(local({{"PMI_LOCAL_RANK", "1"}}) == "1 PMI_LOCAL_RANK");
  CHECK(local({{"LOCAL_RANK", "6"}}) == "6 LOCAL_RANK");
  CHECK(local({{"LOCAL_RANK", ""}}) == "none");

  Variables both = slurm;  // as an MPI that knows srun by its PMI
  both["PMI_RANK"] = "9";
  both["LOCAL_RANK"] = "1";
  CHECK(local(both) == "3 SLURM_LOCALID");
  both["OMPI_COMM_WORLD_LOCAL_RANK"] = "4";
  CHECK(local(both) == "4 OMPI_COMM_WORLD_LOCAL_RANK");
  both["TORCHELASTIC_RUN_ID"] = "none";
  CHECK(local(both) == "1 LOCAL_RANK");
}

TEST_CASE("a job's script has no local rank of its own, and what it starts by other launchers has theirs") {
  Variables script = {{"SLURM_JOB_ID", "7"}, {"SLURM_LOCALID", "0"}};
  CHECK_FALSE(local_rank_from_environment(environment_of(script)));
  script["SLURM_STEP_ID"] = "4294967291";
  CHECK_FALSE(local_rank_from_environment(environment_of(script)));
  script["MPI_LOCALRANKID"] = "2";
  CHECK(local_rank_from_environment(environment_of(script))->rank == 2);
}

TEST_CASE("a local rank that is no number is refused in one line") {
  for (const char* value : {"x", "-1", "1.5", " 1", "1\n2"}) {
    const Variables variables = {{"SLURM_LOCALID", value}};
    const auto message = message_of<Error>([&] { local_rank_from_environment(environment_of(variables)); });
    CHECK(message == Contains("--device cuda: SLURM_LOCALID is \""));
    CHECK(message == Contains("give --device cuda:<i> instead"));
    CHECK(testing::is_one_line(message));
  }
}

TEST_CASE("a Slurm array counts where one process runs at a time") {
  const auto array = [](std::string id, std::string first, std::string last, std::string count, std::string step) {
    return Variables{{"SLURM_JOB_ID", "7"},
                     {"SLURM_PROCID", "0"},
                     {"SLURM_NTASKS", "1"},
                     {"SLURM_ARRAY_TASK_ID", id},
                     {"SLURM_ARRAY_TASK_MIN", first},
                     {"SLURM_ARRAY_TASK_MAX", last},
                     {"SLURM_ARRAY_TASK_COUNT", count},
                     {"SLURM_ARRAY_TASK_STEP", step}};
  };
  CHECK(in(array("1", "1", "4", "4", "1")).shard == Shard{1, 4});
  CHECK(in(array("4", "1", "4", "4", "1")).shard == Shard{4, 4});
  CHECK(in(array("0", "0", "9", "10", "1")).shard == Shard{1, 10});
  CHECK(in(array("4", "1", "7", "3", "3")).shard == Shard{2, 3});  // --array=1-8:3
  CHECK(in(array("5", "5", "5", "1", "1")).shard == Shard{1, 1});
  CHECK(in(array("4", "1", "4", "4", "1")).source == "Slurm array (SLURM_ARRAY_TASK_ID 4 of 1 to 4)");

  for (const auto& uneven :
       {array("5", "1", "7", "3", "1"), array("4", "1", "6", "3", "1"), array("9", "1", "4", "4", "1"),
        array("1", "4", "1", "4", "1"), array("1", "1", "4", "0", "1")}) {
    CHECK(refusal(uneven) == Contains("expected evenly spaced ids"));
  }

  auto without_tasks = array("2", "1", "4", "4", "1");
  without_tasks.erase("SLURM_NTASKS");
  without_tasks.erase("SLURM_PROCID");
  CHECK(in(without_tasks).shard == Shard{2, 4});

  auto with_tasks = array("2", "1", "4", "4", "1");
  with_tasks["SLURM_NTASKS"] = "3";
  with_tasks["SLURM_STEP_ID"] = "0";
  with_tasks["SLURM_PROCID"] = "2";
  CHECK(in(with_tasks).shard == Shard{3, 3});
  with_tasks.erase("SLURM_ARRAY_TASK_MIN");
  with_tasks["SLURM_NTASKS"] = "1";
  with_tasks["SLURM_PROCID"] = "0";
  CHECK(refusal(with_tasks) == Contains("SLURM_ARRAY_TASK_MIN"));
}

TEST_CASE("a Slurm job's script that runs rometrace without srun is told so") {
  Variables script = {{"SLURM_JOB_ID", "7"}, {"SLURM_PROCID", "0"}, {"SLURM_NTASKS", "4"}};
  CHECK(refusal(script) ==
        "--shard auto: this is the script of a Slurm job of 4 tasks, not one of its tasks; start rometrace by srun, or "
        "give --shard I/N instead");
  script["SLURM_STEP_ID"] = "4294967291";  // SLURM_BATCH_SCRIPT
  CHECK(refusal(script) == Contains("start rometrace by srun"));
  script["SLURM_STEP_ID"] = "0";
  CHECK(in(script).shard == Shard{1, 4});
  script.erase("SLURM_STEP_ID");
  script["SLURM_NTASKS"] = "1";
  CHECK(in(script).shard == Shard{1, 1});
  // A shell that salloc opened is no task: it has the number of tasks and no rank.
  CHECK(refusal({{"SLURM_JOB_ID", "7"}, {"SLURM_NTASKS", "4"}}) == Contains("no rank in the environment"));
}

TEST_CASE("an environment without a launcher, or one that makes no sense, is refused in one line") {
  CHECK(
      refusal({}) ==
      "--shard auto: no rank in the environment (of torchrun, Open MPI, PMI or Slurm); start rometrace by srun, mpirun "
      "or torchrun, or give --shard I/N instead");
  CHECK(refusal({{"OMPI_COMM_WORLD_RANK", "1"}}) ==
        "--shard auto: OMPI_COMM_WORLD_RANK is set and OMPI_COMM_WORLD_SIZE is not; expected both; give --shard I/N "
        "instead");
  CHECK(refusal({{"PMI_SIZE", "4"}}) == Contains("PMI_SIZE is set and PMI_RANK is not"));
  CHECK(refusal({{"PMI_RANK", "4"}, {"PMI_SIZE", "4"}}) == Contains("PMI_RANK is 4 and PMI_SIZE is 4"));
  CHECK(refusal({{"PMI_RANK", "0"}, {"PMI_SIZE", "0"}}) == Contains("PMI_SIZE is 0"));
  for (const char* text : {"x", "-1", "1.5", "0x1", " 1", "99999999999999999999", "1\n2"}) {
    const std::string message = refusal({{"SLURM_PROCID", text}, {"SLURM_NTASKS", "4"}});
    CHECK(message == Contains("SLURM_PROCID is \""));
    CHECK(testing::is_one_line(message));
  }
  CHECK(refusal({{"RANK", ""}, {"WORLD_SIZE", ""}}) == Contains("no rank in the environment"));
}

}  // namespace
}  // namespace rometrace::shard_test

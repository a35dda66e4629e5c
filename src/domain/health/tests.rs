//! The judgement, fact by fact.

use super::*;
use crate::domain::ReasonCode;
use crate::domain::metrics::Throttling;

fn pipeline(state: PipelineState) -> PipelineHealth {
    PipelineHealth {
        name: "belt".parse().unwrap(),
        slot: "detector".parse().unwrap(),
        state,
        source: SourceHealth::default(),
        release: None,
        provider: Some(Provider::Cpu),
        fallback: None,
        shares: Vec::new(),
        fps: 15.0,
        last_error: None,
        failed_deployment: None,
    }
}

fn facts(pipelines: Vec<PipelineHealth>) -> Facts {
    Facts {
        device: "pi-1".parse().unwrap(),
        agent_version: "0.1.0".into(),
        boot_id: "b".into(),
        uptime_s: 1,
        clock_synchronised: Some(true),
        clock: clock::ClockFacts::default(),
        pipelines,
        mqtt: LinkHealth { target: Some("mqtt://broker:1883".into()), reached: true, last_error: None },
        messages_lost: Dropped::default(),
        repository: LinkHealth::default(),
        board: BoardMetrics::default(),
        disk_reserve: 1 << 20,
        others: vec![],
    }
}

fn reason(detail: &str) -> Reason {
    Reason::new(ReasonCode::Internal, detail)
}

#[test]
fn each_pipeline_state_has_its_judgement_and_problem() {
    use HealthState::*;
    use PipelineState::*;
    for (state, judged, code) in [
        (NoModel, Degraded, Some(ProblemCode::NoModel)),
        (Starting, Ok, None),
        (Running, Ok, None),
        (SourceFailed, Failed, Some(ProblemCode::SourceFailed)),
        (ModelFailed, Failed, Some(ProblemCode::ModelFailed)),
        (Ended, Ok, None),
        (Paused, Ok, None),
    ] {
        let report = judge(facts(vec![pipeline(state)]));
        assert_eq!(report.state, judged, "{state:?}");
        assert_eq!(report.problems.first().map(|p| p.code), code, "{state:?}");
    }
}

#[test]
fn one_working_pipeline_keeps_the_device_from_failed() {
    let report = judge(facts(vec![pipeline(PipelineState::ModelFailed), pipeline(PipelineState::Running)]));
    assert_eq!(report.state, HealthState::Degraded);
    let report = judge(facts(vec![pipeline(PipelineState::ModelFailed), pipeline(PipelineState::NoModel)]));
    assert_eq!(report.state, HealthState::Failed);
    assert_eq!(report.problems[0].code, ProblemCode::ModelFailed, "the worst comes first");
}

#[test]
fn every_other_fact_has_its_problem() {
    let case = |change: &dyn Fn(&mut Facts)| {
        let mut facts = facts(vec![pipeline(PipelineState::Running)]);
        change(&mut facts);
        let report = judge(facts);
        assert_eq!(report.state, HealthState::Degraded);
        assert_eq!(report.problems.len(), 1, "{:?}", report.problems);
        report.problems[0].clone()
    };
    let broker = case(&|f| {
        f.mqtt.reached = false;
        f.mqtt.last_error = Some(reason("refused the password"));
    });
    assert_eq!(broker.code, ProblemCode::BrokerUnreachable);
    assert!(broker.detail.contains("mqtt://broker:1883") && broker.detail.contains("refused"));
    let repository = case(&|f| {
        f.repository =
            LinkHealth { target: Some("http://r/".into()), reached: false, last_error: Some(reason("down")) };
    });
    assert_eq!(repository.code, ProblemCode::RepositoryUnreachable);
    let frozen = case(&|f| {
        let target = Some("http://r/".into());
        f.repository = LinkHealth { target, reached: true, last_error: Some(reason("timestamp expired")) };
    });
    assert_eq!(frozen.code, ProblemCode::RepositoryRefused);
    assert!(frozen.detail.contains("http://r/") && frozen.detail.contains("timestamp expired"));
    assert_eq!(case(&|f| f.messages_lost.event = 3).code, ProblemCode::MessagesLost);
    assert_eq!(case(&|f| f.clock_synchronised = Some(false)).code, ProblemCode::ClockUnsynchronised);
    assert_eq!(case(&|f| f.board.disk_free_bytes = Some(5)).code, ProblemCode::DiskLow);
    let memory = case(&|f| {
        f.board.memory_total_bytes = Some(1000 << 20);
        f.board.memory_available_bytes = Some(49 << 20);
    });
    assert_eq!(memory.code, ProblemCode::MemoryLow);
    let volt = case(&|f| f.board.throttled = Some(Throttling::from_bits(1)));
    assert!(volt.code == ProblemCode::Throttled && volt.detail.contains("voltage"));
    let hot = case(&|f| f.board.throttled = Some(Throttling::from_bits(4)));
    assert!(hot.detail.contains("hot"));
    let fallback = case(&|f| f.pipelines[0].fallback = Some("cuda is not there".into()));
    assert_eq!(fallback.code, ProblemCode::ProviderFallback);
    assert_eq!(case(&|f| f.pipelines[0].last_error = Some(reason("x"))).code, ProblemCode::FrameErrors);
    let deployment = case(&|f| {
        f.pipelines[0].failed_deployment = Some(FailedDeployment {
            release: "m@1.0.0".parse().unwrap(),
            stage: Stage::RolledBack,
            reason: reason("slow"),
        });
    });
    assert!(deployment.detail.contains("m@1.0.0 was rolled back: slow"));
    assert_eq!(
        case(&|f| f.others.push(Problem::new(ProblemCode::StoreRebuilt, "x"))).code,
        ProblemCode::StoreRebuilt
    );
}

#[test]
fn a_link_that_was_not_tried_yet_is_no_problem() {
    let mut f = facts(vec![pipeline(PipelineState::Running)]);
    f.mqtt.reached = false;
    assert_eq!(judge(f).state, HealthState::Ok);
}

#[test]
fn figures_alone_are_no_change() {
    let first = judge(facts(vec![pipeline(PipelineState::Running)]));
    let mut later = facts(vec![pipeline(PipelineState::Running)]);
    later.uptime_s = 99;
    later.pipelines[0].fps = 3.0;
    assert!(!judge(later.clone()).differs(&first));
    later.pipelines[0].source.state = SourceState::Running;
    let running = judge(later.clone());
    later.pipelines[0].source.state = SourceState::Still;
    assert!(!judge(later.clone()).differs(&running), "a scene at rest");
    later.pipelines[0].source.state = SourceState::Lost;
    assert!(judge(later.clone()).differs(&running));
    later.pipelines[0].source.state = SourceState::Opening;
    later.pipelines[0].state = PipelineState::Ended;
    assert!(judge(later.clone()).differs(&first));
    later.pipelines[0].state = PipelineState::Running;
    later.clock_synchronised = Some(false);
    assert!(judge(later).differs(&first));
}
